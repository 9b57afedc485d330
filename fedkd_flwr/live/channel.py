"""The way of events to whoever shows them: a function in the same process, a file between processes."""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from fedkd_flwr.live.events import Event, Warned, from_line, to_line

EVENTS = "FEDKD_EVENTS"
"""The environment variable that names the file into which the processes of a launch write their events."""

Tell = Callable[[Event], None]
"""Takes an event."""

_LOOK_SECONDS = 0.2
_OURS = "fedkd: "

_listener: ContextVar[Tell | None] = ContextVar("listener", default=None)


def heard() -> bool:
    """Whether anybody listens to the events of this process."""
    return _listener.get() is not None or EVENTS in os.environ


def tell(event: Event) -> None:
    """Tell whoever listens; a file that cannot be written costs no run."""
    if (listener := _listener.get()) is not None:
        listener(event)
    elif path := os.environ.get(EVENTS):
        # One write of one line to the end of the file: lines of several processes do not mix.
        with suppress(OSError), open(path, "ab", buffering=0) as file:  # noqa: PTH123
            file.write(f"{to_line(event)}\n".encode())


@contextmanager
def listening(listener: Tell) -> Iterator[None]:
    """Inside, the events of this thread go to a function."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def followed(path: Path, listener: Tell) -> Iterator[None]:
    """Inside, a thread hands the events that come into a file to a function, to the last one."""
    path.touch()
    over = threading.Event()

    def follow() -> None:
        with path.open("rb") as file:
            rest = b""
            while True:
                last = over.wait(_LOOK_SECONDS)
                *lines, rest = (rest + file.read()).split(b"\n")
                for line in lines:
                    with suppress(ValueError):
                        listener(from_line(line))
                if last:
                    return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def warnings_told() -> Iterator[None]:
    """Inside, what the server's log warns of is told, too."""
    handler, log = _ToldWarnings(logging.WARNING), logging.getLogger("flwr")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


class _ToldWarnings(logging.Handler):
    """Tells warnings of this package; one with a traceback is for the log alone."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith(_OURS) and not record.exc_info:
            tell(Warned(text=text.removeprefix(_OURS)))
