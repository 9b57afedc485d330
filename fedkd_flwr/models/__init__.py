"""Models of texts and images: found, built, checked, exported."""
