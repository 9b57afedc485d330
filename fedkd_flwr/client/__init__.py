"""One client of a run: its data, its models and its state between rounds."""
