"""Finding and ending the processes of one launch, and of no other, by a variable in their environment."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import psutil

MARKER = "FEDKD_LAUNCH"
"""Environment variable that every process of a launch inherits; its value names the launch."""

_TERMINATE_SECONDS = 3.0
_KILL_SECONDS = 10.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asked this process to end."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


def marked(launch: str) -> set[psutil.Process]:
    """The living processes of a launch: those that carry its name, and all that descend from them.

    Descendants count because a process that sets its own title (Ray's agents do) loses its environment.
    """
    carriers = [process for process in psutil.process_iter() if _carries(process, launch)]
    return {*carriers, *(child for carrier in carriers for child in _descendants(carrier))}


def end_all(launch: str) -> int:
    """End every process of a launch, politely at first; return how many there were."""
    known: set[psutil.Process] = set()
    for end, seconds in (
        (psutil.Process.terminate, _TERMINATE_SECONDS),
        (psutil.Process.kill, _KILL_SECONDS),
        (psutil.Process.kill, _KILL_SECONDS),
    ):
        known |= marked(launch)
        alive = [process for process in known if process.is_running()]
        for process in alive:
            with suppress(psutil.Error):
                end(process)
        psutil.wait_procs(alive, timeout=seconds)
    return len(known)


def _carries(process: psutil.Process, launch: str) -> bool:
    with suppress(psutil.Error):
        return process.environ().get(MARKER) == launch
    return False


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return process.children(recursive=True)
    return []


@contextmanager
def signals_raise() -> Iterator[None]:
    """Within the block SIGINT, SIGTERM and SIGHUP raise `Interrupted`."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise Interrupted(signum)

    with _handler(interrupt):
        yield


@contextmanager
def signals_wait() -> Iterator[None]:
    """Within the block SIGINT, SIGTERM and SIGHUP are ignored: a clean-up runs to its end."""
    with _handler(signal.SIG_IGN):
        yield


@contextmanager
def _handler(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> Iterator[None]:
    before = {signum: signal.signal(signum, handler) for signum in _SIGNALS}
    try:
        yield
    finally:
        for signum, previous in before.items():
            signal.signal(signum, previous)
