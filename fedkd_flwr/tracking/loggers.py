"""What follows a run while it goes: a logger is told of each round as it is published."""

from collections.abc import Sequence
from importlib.util import find_spec
from logging import getLogger
from pathlib import Path
from typing import Protocol

from fedkd_flwr.runtime.one_line import one_line
from fedkd_flwr.tracking.history import History

log = getLogger("flwr")


class Logger(Protocol):
    """Shows a run somewhere else than in its folder."""

    def log(self, history: History) -> None:
        """Show what is new in the history; the first time all of it, also of a run that was resumed."""


class Loggers:
    """The loggers of a run; one that fails is left out from then on, and costs the run nothing."""

    def __init__(self, loggers: Sequence[Logger] = ()) -> None:
        self._loggers = list(loggers)

    @classmethod
    def of(cls, run: Path) -> "Loggers":
        """Those for the run in a folder: TensorBoard where it is installed."""
        if find_spec("tensorboard") is None:
            return cls()
        from fedkd_flwr.tracking.tensorboard import TensorBoardLogger

        return cls([TensorBoardLogger(run)])

    def log(self, history: History) -> None:
        """Tell each of a round that has been published."""
        for logger in [*self._loggers]:
            try:
                logger.log(history)
            except Exception as error:
                self._loggers.remove(logger)
                log.warning("fedkd: %s ends: %s", type(logger).__name__, one_line(f"{type(error).__name__}: {error}"))
