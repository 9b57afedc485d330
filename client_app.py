"""The door that Flower opens at a node; it looks here for an assignment to `app`."""

from fedkd_flwr.client import app as client

app = client.app
