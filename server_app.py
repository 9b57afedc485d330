"""The door that Flower opens at the server; it looks here for an assignment to `app`."""

from fedkd_flwr.server import app as server

app = server.app
