"""Wall seconds by part of the work."""

import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_FOR_ONE_MESSAGE = "flwr-clientapp"
"""The command of the process that Flower starts for one message; a simulation's worker takes many."""


class Clock:
    """Adds up the wall seconds spent in named parts."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)

    def add(self, part: str, seconds: float) -> None:
        """Count `seconds` as `part`; nothing where there are none."""
        if seconds:
            self._seconds[part] += seconds

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Count the time inside the `with` block as `part`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[part] += time.perf_counter() - start

    @property
    def seconds(self) -> dict[str, float]:
        """Part -> seconds so far."""
        return dict(self._seconds)


def start_seconds() -> float:
    """Wall seconds from the start of this process, where it was started for the message that it handles, until now."""
    if Path(sys.argv[0]).stem != _FOR_ONE_MESSAGE:
        return 0.0
    return max(0.0, time.time() - psutil.Process().create_time())
