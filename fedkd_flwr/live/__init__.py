"""What a run tells while it goes, and how a user sees it: a live view, or lines."""
