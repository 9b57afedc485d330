"""`python -m fedkd_flwr` is `fedkd`."""

from fedkd_flwr.cli.main import app

app(prog_name="fedkd")
