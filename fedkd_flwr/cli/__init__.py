"""The command `fedkd`."""
