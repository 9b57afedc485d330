"""The machine that a process runs on: its CPUs, its device, its files, its clock and its log."""
