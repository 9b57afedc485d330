import io
import logging
from collections.abc import Iterator

import pytest
from flwr.supercore.logger import ConsoleHandler

import server_app  # noqa: F401
from fedkd_flwr.errors import RunError
from fedkd_flwr.runtime.flower_log import FAILED


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What Flower's own handler writes."""
    text = io.StringIO()
    handler = ConsoleHandler(colored=False, stream=text)
    logging.getLogger("flwr").addHandler(handler)
    yield text
    logging.getLogger("flwr").removeHandler(handler)


def raised(error: Exception) -> Exception:
    try:
        raise error
    except type(error) as caught:
        return caught


def test_an_error_of_ours_that_ends_the_server_app_is_one_line(log: io.StringIO) -> None:
    logging.getLogger("flwr").error("%s raised an exception", "Simulation", exc_info=raised(RunError("too\n  few")))
    assert log.getvalue() == f"ERROR :     {FAILED}too few\n"


def test_an_unknown_exception_keeps_its_traceback(log: io.StringIO) -> None:
    logging.getLogger("flwr").error("%s raised an exception", "ServerApp", exc_info=raised(ValueError("x")))
    assert log.getvalue().startswith("ERROR :     ServerApp raised an exception\nTraceback")
    assert log.getvalue().endswith("ValueError: x\n")
