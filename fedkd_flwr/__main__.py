"""`python -m fedkd_flwr` is `fedkd`."""

from fedkd_flwr.cli import app

app(prog_name="fedkd")
