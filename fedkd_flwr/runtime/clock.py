"""Wall seconds by part of the work."""

import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FOR_ONE_MESSAGE = "flwr-clientapp"
"""The command of the process that Flower starts for one message; a simulation's worker takes many."""

_START_TICKS = 19
"""Where /proc/PID/stat has the start after the process's name: field 22, in ticks since boot (man proc)."""


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
    """Wall seconds from the start of this process until now, where Flower started it for one message; else 0.

    From the kernel, to 10 ms, so on Linux only: elsewhere 0.
    """
    if Path(sys.argv[0]).stem != _FOR_ONE_MESSAGE or sys.platform != "linux":
        return 0.0
    after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started = int(after_name[_START_TICKS]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started
