"""A process that says nothing but what its caller says: libraries write into a file, and draw no bars."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fedkd_flwr.errors import StateError
from fedkd_flwr.runtime.bars import without_bars

_LOGGERS = ("flwr", "fedkd_flwr", "py.warnings", "transformers", "datasets", "huggingface_hub")


@contextmanager
def quiet(log: Path) -> Iterator[None]:
    """Inside, what Flower, the libraries and this package log goes to the end of a file, warnings of Python among it.

    Args:
        log: the file; it and its folder need not be there.

    Raises:
        StateError: it cannot be written.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(log, encoding="utf-8")
    except OSError as error:
        raise StateError(f"cannot write {log}: {error.strerror}; set run.runs-dir to another folder") from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
    with ExitStack() as after, warnings.catch_warnings():
        after.callback(handler.close)
        after.enter_context(without_bars())
        logging.captureWarnings(True)
        after.callback(logging.captureWarnings, False)
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            after.callback(_restore, logger, logger.handlers, logger.propagate)
            logger.handlers, logger.propagate = [handler], False
        yield


def _restore(logger: logging.Logger, handlers: list[logging.Handler], propagate: bool) -> None:
    logger.handlers, logger.propagate = handlers, propagate
