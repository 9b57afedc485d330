"""What lies in a node's state-dir: whose it is, whether its run may go on, and how to be rid of it.

Only folders with a manifest of ours are seen, so nothing else is removed.
"""

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from fedkd_flwr.client.manifest import FORMAT, MANIFEST, newest_state, read_manifest
from fedkd_flwr.errors import StateError
from fedkd_flwr.names import is_lineage
from fedkd_flwr.runtime.disk import locked

_REMOVING = ".removing-"
_MB = 1e6
_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


@dataclass(frozen=True)
class KeptState:
    """A node's state of one run.

    Attributes:
        folder: where it lies.
        run: how people call the run; empty where that is not known.
        round: the last one that it trained.
        finished: the run needs no more of it.
        note: what else there is to say of it.
        used: when its run last used it, seconds since 1970.
        size: bytes.
    """

    folder: Path
    run: str
    round: int
    finished: bool
    note: str
    used: float
    size: int


@dataclass(frozen=True)
class Lineage:
    """The nodes' states of one run."""

    folder: Path
    states: tuple[KeptState, ...]

    @property
    def name(self) -> str:
        """By which it is removed."""
        return self.folder.name

    @property
    def run(self) -> str:
        """How people call the run; empty where that is not known."""
        return next((state.run for state in self.states if state.run), "")

    @property
    def finished(self) -> bool:
        """No node is waited for."""
        return all(state.finished for state in self.states)

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(state.size for state in self.states)

    @property
    def used(self) -> float:
        """When the run last used a state, seconds since 1970."""
        return max(state.used for state in self.states)


def lineages(state_dir: Path) -> list[Lineage]:
    """All that a state-dir holds, the newest first.

    Raises:
        StateError: there is no such folder, or it cannot be read.
    """
    try:
        folders = [path for path in state_dir.iterdir() if is_lineage(path.name) and not path.is_symlink()]
        found = [Lineage(path, tuple(_states(path))) for path in folders if path.is_dir()]
    except OSError as error:
        raise StateError(
            f"state-dir {state_dir} cannot be read ({error.strerror}): say which with --state-dir"
        ) from None
    return sorted((each for each in found if each.states), key=lambda each: each.used, reverse=True)


def choose(found: Iterable[Lineage], names: Sequence[str], all_finished: bool, force: bool) -> list[Lineage]:
    """Those that are to be removed.

    Args:
        found: all there are.
        names: of those that were asked for.
        all_finished: all that are finished were asked for, too.
        force: also those of runs that may go on, where asked for by name.

    Raises:
        StateError: one is not there, or its run may go on.
    """
    by_name = {each.name: each for each in found}
    for name in names:
        if name not in by_name:
            raise StateError(f"there is no lineage {name!r}: `fedkd clean` lists all")
        if not (by_name[name].finished or force):
            raise StateError(_may_go_on(by_name[name]))
    return [each for each in by_name.values() if each.name in names or (all_finished and each.finished)]


def remove(lineage: Lineage, force: bool) -> None:
    """Remove a lineage's states; each is gone at once.

    Raises:
        StateError: the run goes on just now, or the disk refuses.
    """
    try:
        for state in lineage.states:
            with locked(lineage.folder / f".{state.folder.name}.lock", wait=False) as alone:
                if not force and not (alone and _state(state.folder).finished):
                    raise StateError(_may_go_on(lineage))
                doomed = state.folder.with_name(f"{_REMOVING}{state.folder.name.removeprefix(_REMOVING)}")
                state.folder.rename(doomed)
            shutil.rmtree(doomed)
        for lock in lineage.folder.glob(".*.lock"):
            lock.unlink()
    except OSError as error:
        raise StateError(f"{lineage.folder} cannot be removed: {error}") from None
    with suppress(OSError):
        lineage.folder.rmdir()


def as_table(found: Iterable[Lineage]) -> Table:
    """The lineages with a row for each node."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("lineage", "run", "node", "rounds", "state", "used", "MB"):
        table.add_column(heading, justify="right" if heading in ("rounds", "used", "MB") else "left", no_wrap=True)
    for lineage in found:
        for number, state in enumerate(lineage.states):
            table.add_row(
                "" if number else lineage.name,
                Text("" if number else lineage.run),
                Text(state.folder.name.removeprefix(_REMOVING)),
                str(state.round),
                state.note or ("finished" if state.finished else "may go on"),
                _age(state.used),
                f"{state.size / _MB:.1f}",
            )
        table.add_section()
    return table


def megabytes(found: Iterable[Lineage]) -> str:
    """Of all of them, in words."""
    return f"{sum(each.size for each in found) / _MB:.1f} MB"


def _states(lineage: Path) -> Iterator[KeptState]:
    for path in sorted(lineage.iterdir()):
        ours = path.name.startswith(_REMOVING) or any(path.glob(f"{'[0-9]' * 8}/{MANIFEST}"))
        if ours and path.is_dir() and not path.is_symlink():
            yield _state(path)


def _state(folder: Path) -> KeptState:
    size, newest = _size(folder), newest_state(folder) or folder
    if folder.name.startswith(_REMOVING):
        return KeptState(folder, "", 0, True, "half removed", newest.stat().st_mtime, size)
    try:
        manifest = read_manifest(newest)
        if manifest["format"] != FORMAT:
            return KeptState(folder, "", manifest["round"], False, "of another version", newest.stat().st_mtime, size)
        run, round, finished = str(manifest["run"]), int(manifest["round"]), bool(manifest["finished"])
        note = "damaged, set aside" if "+" in folder.name else ""
        return KeptState(folder, run, round, finished, note, float(manifest["used"]), size)
    except (OSError, ValueError, KeyError, TypeError):
        return KeptState(folder, "", 0, False, "damaged", newest.stat().st_mtime, size)


def _size(folder: Path) -> int:
    """Bytes of all files; what is linked twice counts once."""
    paths = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return sum({(found.st_dev, found.st_ino): found.st_size for found in (path.lstat() for path in paths)}.values())


def _age(used: float) -> str:
    seconds = max(0.0, time.time() - used)
    return next((f"{seconds / unit:.0f} {name} ago" for unit, name in _UNITS if seconds >= unit), "just now")


def _may_go_on(lineage: Lineage) -> str:
    run = f" (run {lineage.run})" if lineage.run else ""
    return (
        f"lineage {lineage.name}{run} is of a run that may go on: resume it, or remove its teachers all the same with "
        "--force"
    )
