"""Helpers of the tests: tiny checkpoints, small data, a federation that is killed."""
