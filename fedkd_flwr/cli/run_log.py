"""The log of a Flower run as it arrives."""

import re
import subprocess
import threading
import time
from collections.abc import Callable

from fedkd_flwr.runtime.flower_log import FAILED

Say = Callable[[str], None]
"""Takes one line of text."""

_ERROR = re.compile(r"^(?:\w+\.)*(\w*(?:Error|Exception|Interrupt|Exit)\b.*)$")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_NOISE = (
    "Using SuperLink:",
    "Starting logstream",
    "default simulated SuperNodes changed",
    "To change federation size",
    "flwr federation simulation-config",
)
"""Lines of Flower's log that would mislead here, where the options of `fedkd run` decide."""

_NO_SIGN_OF_LIFE = "(raylet)"
"""What begins the lines of Ray's own daemon, which says every ten seconds that a disk is almost full."""

_WRAPPED = ("Simulation Runtime crashed.", "An error was encountered. Ending simulation.")
"""Flower's own errors around another, which comes before them and says why."""


def plain(line: str) -> str:
    """A log line without colours and surrounding blanks."""
    return _ANSI.sub("", line).strip()


class RunLog:
    """A run's log as it arrives: kept line by line by a thread that remembers the last line and error.

    Of a run that ends with an error of ours the log is kept up to there: whoever gives the verdict says the error.
    """

    def __init__(self, process: "subprocess.Popen[str]", keep: Say) -> None:
        self.error = ""
        self._last = ""
        self._heard = time.monotonic()
        self._process = process
        self._reader = threading.Thread(target=self._read, args=(keep,), daemon=True)
        self._reader.start()

    @property
    def silence(self) -> float:
        """Seconds since the last line; 0 once the log has ended, where silence says nothing of the run."""
        return time.monotonic() - self._heard if self._process.poll() is None else 0.0

    @property
    def last_words(self) -> str:
        """The last line, for a message."""
        return f"the last line of its log: {self._last}" if self._last else "its log is empty"

    def wait(self, seconds: float) -> None:
        """Wait until the log has ended, at most so long."""
        self._reader.join(seconds)

    def _read(self, keep: Say) -> None:
        told = False
        for line in self._process.stdout or ():
            words = plain(line)
            if words.startswith(_NO_SIGN_OF_LIFE):
                keep(words)
                continue
            self._heard = time.monotonic()
            if FAILED in words:
                self.error, told = words.partition(FAILED)[2], True
            if told or any(noise in words for noise in _NOISE):
                continue
            keep(_ANSI.sub("", line).rstrip())
            self._last = words or self._last
            if (match := _ERROR.match(words)) and not words.endswith(_WRAPPED):
                self.error = match[1]
