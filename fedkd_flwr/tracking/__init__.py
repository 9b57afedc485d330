"""What a run leaves to look at: its history, its traffic, its summary."""
