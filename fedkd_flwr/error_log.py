"""How Flower's log tells of an error that a user can act on: in one line, without a traceback."""

import logging

from fedkd_flwr.errors import FedKDError

FAILED = "fedkd: the run failed: "
"""Begins the line that says why a run failed."""


def log_errors_in_one_line() -> None:
    """From now on a `FedKDError` that ends a ServerApp is one line of Flower's log; other exceptions stay as they are.

    Flower itself logs the exception that ends an app, in a simulation and in a deployment alike.
    """
    logging.getLogger("flwr").addFilter(_one_line)


def _one_line(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, FedKDError):
        record.msg, record.args, record.exc_info = FAILED + "%s", (" ".join(str(error).split()),), None
    return True
