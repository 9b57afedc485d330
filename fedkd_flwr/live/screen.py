"""Where a run is shown: a live view on a terminal or in a notebook, or else a line for each event."""

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.panel import Panel

from fedkd_flwr.live.channel import Tell
from fedkd_flwr.live.events import Event, Warned
from fedkd_flwr.live.panel import panel
from fedkd_flwr.live.picture import Picture
from fedkd_flwr.live.words import line

_REFRESHES_PER_SECOND = 4
_NOTEBOOK_SECONDS = 0.5


def log_of(folder: Path) -> Path:
    """The file with the log of the run in a folder: beside it, as it is there before the folder and without it."""
    return folder.with_name(f"{folder.name}.log")


def shown(folder: Path, *, show: bool = True, keep: bool = False) -> AbstractContextManager[Tell]:
    """Show a run for as long as the context is open; it yields the function that takes the run's events.

    Args:
        folder: of the run.
        show: whether anything is shown.
        keep: the last view stays on the terminal.
    """
    if not show:
        return nullcontext(lambda event: None)
    console = Console(highlight=False, markup=False, emoji=False)
    view = _View(str(_short(folder)), str(_short(log_of(folder))))
    if console.is_jupyter:
        return _in_notebook(view)
    if console.is_terminal:
        return _on_terminal(view, console, keep)
    return _in_lines(view)


class _View:
    """A run's picture, which one thread brings up to date while another draws it."""

    def __init__(self, title: str, log: str) -> None:
        self.title, self.log = title, log
        self._began = time.time()
        self._picture = Picture()
        self._lock = threading.Lock()

    def take(self, event: Event) -> str:
        """Take an event; returns it in words, empty where there is nothing to say."""
        with self._lock:
            self._picture.take(event)
            return line(event, self._picture)

    def draw(self) -> Panel:
        """The view as it is now."""
        with self._lock:
            return panel(self._picture, self.title, self.log, self._began, time.time())


@contextmanager
def _on_terminal(view: _View, console: Console, keep: bool) -> Iterator[Tell]:
    with Live(
        get_renderable=view.draw, console=console, refresh_per_second=_REFRESHES_PER_SECOND, transient=not keep
    ) as live:

        def tell(event: Event) -> None:
            words = view.take(event)
            if isinstance(event, Warned):
                live.console.print(f"fedkd: {words}", style="yellow")

        yield tell


@contextmanager
def _in_notebook(view: _View) -> Iterator[Tell]:
    from IPython.display import display

    handle = display(view.draw(), display_id=True)
    drawn = 0.0

    def tell(event: Event) -> None:
        nonlocal drawn
        view.take(event)
        if (now := time.monotonic()) - drawn >= _NOTEBOOK_SECONDS:
            handle.update(view.draw())
            drawn = now

    try:
        yield tell
    finally:
        handle.update(view.draw())


@contextmanager
def _in_lines(view: _View) -> Iterator[Tell]:
    def say(words: str) -> None:
        if words:
            print(f"fedkd: {words}", flush=True)

    say(f"results: {view.title}, log: {view.log}")
    yield lambda event: say(view.take(event))


def _short(path: Path) -> Path:
    """A path from the current folder, where it lies below that."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
