"""Bounds and hides what leaves a node whose data are its owner's own."""
