"""Ending the processes of one launch, and of no other, however the launching process itself ends.

Run as a script, this file is the guard of a launch: it imports nothing of the package.
"""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import psutil

MARKER = "FEDKD_LAUNCH"
"""Environment variable that every process of a launch inherits; its value is the launch's temporary folder."""

_TERMINATE_SECONDS = 3.0
_KILL_SECONDS = 10.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asked this process to end."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


@contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """A block that leaves no process marked with the folder, nor the folder, even where SIGKILL ends it.

    Within it SIGINT, SIGTERM and SIGHUP raise `Interrupted`. A second process does the clean-up: it waits
    for the end of its standard input, which comes with the end of the block or of this process.
    """
    with _on_signals(_interrupt):
        guard = subprocess.Popen(
            [sys.executable, "-P", __file__, str(folder)], stdin=subprocess.PIPE, start_new_session=True
        )
        try:
            yield
        finally:
            with _on_signals(signal.SIG_IGN):
                guard.communicate()


def marked(launch: str) -> set[psutil.Process]:
    """The living processes of a launch: those that carry its name, and all that descend from them.

    Descendants count because a process that sets its own title (Ray's agents do) loses its environment.
    """
    carriers = [process for process in psutil.process_iter() if _carries(process, launch)]
    return {*carriers, *(child for carrier in carriers for child in _descendants(carrier))}


def end_all(launch: str) -> None:
    """End every process of a launch, politely at first."""
    known: set[psutil.Process] = set()
    for end, seconds in (
        (psutil.Process.terminate, _TERMINATE_SECONDS),
        (psutil.Process.kill, _KILL_SECONDS),
        (psutil.Process.kill, _KILL_SECONDS),
    ):
        known |= marked(launch)
        for process in known:
            with suppress(psutil.Error):
                end(process)
        deadline = time.monotonic() + seconds
        while any(map(_alive, known)) and time.monotonic() < deadline:
            time.sleep(0.05)


def _alive(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _carries(process: psutil.Process, launch: str) -> bool:
    with suppress(psutil.Error):
        return process.environ().get(MARKER) == launch
    return False


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return process.children(recursive=True)
    return []


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise Interrupted(signum)


@contextmanager
def _on_signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> Iterator[None]:
    before = {signum: signal.signal(signum, handler) for signum in _SIGNALS}
    try:
        yield
    finally:
        for signum, previous in before.items():
            signal.signal(signum, previous)


if __name__ == "__main__":
    sys.stdin.read()
    end_all(sys.argv[1])
    shutil.rmtree(sys.argv[1], ignore_errors=True)
