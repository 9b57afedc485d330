"""How Flower's log tells of a run: line by line, whatever the nodes say, and of an error without a traceback."""

import logging

from fedkd_flwr.errors import FedKDError
from fedkd_flwr.runtime.one_line import LONGEST_LINE, one_line

FAILED = "fedkd: the run failed: "
"""Begins the line that says why a run failed."""

_OURS = "fedkd: "


def log_in_single_lines() -> None:
    """From now on what this package tells Flower's log is a line each time, without control characters and bounded.

    So is a `FedKDError` that ends a ServerApp; other exceptions stay as they are. Flower itself logs the exception
    that ends an app, in a simulation and in a deployment alike.
    """
    logging.getLogger("flwr").addFilter(_in_one_line)


def _in_one_line(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, FedKDError):
        record.msg, record.args, record.exc_info = FAILED + "%s", (error,), None
    if str(record.msg).startswith(_OURS):
        record.msg, record.args = one_line(record.getMessage(), LONGEST_LINE), None
    return True
