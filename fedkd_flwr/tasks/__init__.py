"""The tasks: how examples become batches, the two losses, the scores."""
