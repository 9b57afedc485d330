"""What a node keeps between rounds, on disk, so that a kill at any instant leaves the old state or the new one.

STATE_DIR/LINEAGE/NODE/00000012/ holds the 12th state written: safetensors and a manifest with their checksums.
A state is written beside the old one, flushed, renamed into place, and only then is the old one removed.

Nothing here removes a state that a run may still go on with, or a finished teacher. A state is finished once its node
has answered the run's last message; of those, what only further training would need goes when another run joins.
"""

import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedkd_flwr.client.manifest import FORMAT, MANIFEST, newest_state, read_manifest
from fedkd_flwr.errors import DamagedStateError, StateError
from fedkd_flwr.names import is_lineage, is_node
from fedkd_flwr.privacy.payout import Terms
from fedkd_flwr.runtime.disk import flush, locked, remove_marked

_TENSORS = ("student", "private", "tied", "moments", "residual")
_FOR_TRAINING = ("moments", "residual")
_REPLY = "reply"


@dataclass(frozen=True)
class NodeState:
    """A node between two messages.

    Attributes:
        round: the last round in which it trained; 0 before the first.
        version: of the student.
        student: the shared trainable tensors at that version, as the server knows them.
        private: the private tensors, of the teacher, W and whatever else.
        tied: the tied parameters as they were when it had trained; empty where its teacher uses the shared ones alone.
        moments: of the optimiser, as `distillation.moments` gives them.
        residual: what the encodings of its updates have dropped so far.
        reply: what it answered in `round`; asked again, it answers the same.
        teacher: `PairModels.teacher_digest` of the models that it is of.
        terms: of the run in which it trained last.
        run: how people call the run.
        slim: moments, residual and reply were removed after the run had finished.
    """

    round: int
    version: int
    student: Mapping[str, Tensor]
    private: Mapping[str, Tensor]
    tied: Mapping[str, Tensor] = field(default_factory=dict)
    moments: Mapping[str, Tensor] = field(default_factory=dict)
    residual: Mapping[str, Tensor] = field(default_factory=dict)
    reply: bytes = b""
    teacher: str = ""
    terms: Terms = field(default_factory=Terms)
    run: str = ""
    slim: bool = False


class NodeStore:
    """The place of one node's state in one lineage."""

    def __init__(self, state_dir: Path, lineage: str, node: str) -> None:
        """Point at the place; nothing is written.

        Raises:
            StateError: lineage or node could lead out of `state_dir`.
        """
        if not is_lineage(lineage) or not is_node(node):
            raise StateError(f"node {node!r} of lineage {lineage!r} has no place below state-dir: these are no names")
        self._lineages = state_dir
        self._lineage = state_dir / lineage
        self.folder = self._lineage / node

    def load(self) -> NodeState | None:
        """The newest state; None where there is none.

        Raises:
            DamagedStateError: it is not what was written; names the file.
            StateError: it cannot be read, or another version of this package wrote it.
        """
        newest = newest_state(self.folder)
        if newest is None:
            return None
        try:
            manifest = read_manifest(newest)
            if manifest["format"] != FORMAT:
                raise StateError(
                    f"{newest} has format {manifest['format']}, this version reads {FORMAT}: "
                    "go on with the version of fedkd-flwr that wrote it, or remove that folder to start afresh"
                )
            for name, expected in manifest["crc32"].items():
                if _crc32(newest / name) != expected:
                    raise DamagedStateError(f"{newest / name} is damaged: its checksum differs")
            return NodeState(
                manifest["round"],
                manifest["version"],
                **{name: load_file(newest / f"{name}.safetensors") for name in _TENSORS},
                reply=(newest / _REPLY).read_bytes(),
                teacher=manifest["teacher"],
                terms=Terms(**manifest["terms"]),
                run=manifest["run"],
                slim=manifest["slim"],
            )
        except (FileNotFoundError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise DamagedStateError(f"{newest} is damaged: {error}") from None
        except OSError as error:
            raise StateError(f"{newest} cannot be read: {error}; the state is left as it is") from None

    def save(self, state: NodeState, unchanged: bool = False, finished: bool = False) -> None:
        """Make `state` the newest one.

        Args:
            state: what to keep.
            unchanged: only `version` and `student` differ from the newest state; the rest is linked.
            finished: the run needs no more of this node.

        Raises:
            StateError: the disk refuses; the old state is still there.
        """

        def fill(fresh: Path, newest: Path | None) -> Mapping[str, Any]:
            manifest = _linked(newest, fresh, but=["student.safetensors"]) if unchanged and newest else {}
            for name in _TENSORS:
                if not (fresh / f"{name}.safetensors").exists():
                    save_file(dict(getattr(state, name)), fresh / f"{name}.safetensors")
            if not (fresh / _REPLY).exists():
                (fresh / _REPLY).write_bytes(state.reply)
            return manifest | {
                "run": state.run,
                "round": state.round,
                "version": state.version,
                "teacher": state.teacher,
                "terms": asdict(state.terms),
                "finished": finished,
                "slim": state.slim,
                "used": time.time(),
            }

        with self._alone():
            self._replace(fill)

    def reopen(self) -> None:
        """The run goes on: a finished state is one to train from again, out of reach of `slim_others`.

        Raises:
            StateError: the disk refuses.
        """

        def fill(fresh: Path, newest: Path | None) -> Mapping[str, Any]:
            return _linked(newest, fresh) | {"finished": False, "used": time.time()}

        if self._is_finished():
            with self._alone():
                self._replace(fill)

    def slim_others(self) -> None:
        """Of this node's finished states in other lineages, remove what only further training would need."""
        for path in self._lineages.glob(f"*/{self.folder.name}"):
            if path != self.folder and is_lineage(path.parent.name):
                with suppress(StateError):
                    NodeStore(self._lineages, path.parent.name, path.name)._slim()

    def set_aside(self) -> Path:
        """Move a damaged state out of the way, for its owner to look at; where it is now."""
        place = next(
            place for n in count(1) if not (place := self._lineage / f"{self.folder.name}+damaged-{n}").exists()
        )
        return self.folder.rename(place)

    def _slim(self) -> None:
        def fill(fresh: Path, newest: Path | None) -> Mapping[str, Any]:
            manifest = _linked(newest, fresh, but=[_REPLY, *(f"{name}.safetensors" for name in _FOR_TRAINING)])
            for name in _FOR_TRAINING:
                save_file({}, fresh / f"{name}.safetensors")
            (fresh / _REPLY).touch()
            return manifest | {"slim": True}

        if self._is_finished():
            with self._alone(wait=False) as alone:
                if alone and self._is_finished(slim=False):
                    self._replace(fill)

    def _is_finished(self, slim: bool | None = None) -> bool:
        newest = newest_state(self.folder)
        try:
            manifest = read_manifest(newest) if newest else {"format": 0}
            return bool(manifest["format"] == FORMAT and manifest["finished"] and slim in (None, manifest["slim"]))
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _replace(self, fill: Callable[[Path, Path | None], Mapping[str, Any]]) -> None:
        """Make the newest state what `fill` puts into an empty folder, given the newest one, and its manifest.

        Raises:
            StateError: the disk refuses; the old state is still there.
        """
        newest = newest_state(self.folder)
        number = int(newest.name) + 1 if newest else 1
        fresh = self.folder / f".new-{uuid4().hex}"
        try:
            self._sweep(keep=newest)
            fresh.mkdir(parents=True)
            (fresh / MANIFEST).touch()
            manifest = {"crc32": {}, **fill(fresh, newest), "format": FORMAT}
            written = {path.name for path in fresh.iterdir()} - {MANIFEST, *manifest["crc32"]}
            manifest["crc32"] |= {name: _crc32(fresh / name) for name in sorted(written)}
            (fresh / MANIFEST).write_text(json.dumps(manifest))
            for path in [*fresh.iterdir(), fresh]:
                flush(path)
            fresh.rename(self.folder / f"{number:08d}")
            flush(self.folder)
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            remove_marked(fresh, MANIFEST)
            raise StateError(
                f"cannot write the node's state to {self.folder}: {error}; the state of the last "
                "message is kept. Free space there (`fedkd clean` lists the runs that may go), or set state-dir to a "
                "folder that can be written"
            ) from None
        self._sweep(keep=self.folder / f"{number:08d}")

    @contextmanager
    def _alone(self, wait: bool = True) -> Iterator[bool]:
        """While no other process writes this state; False: one may, or this file system has no locks."""
        lock = self._lineage / f".{self.folder.name}.lock"
        try:
            self._lineage.mkdir(parents=True, exist_ok=True)
            lock.touch()
        except OSError as error:
            raise StateError(
                f"cannot write the node's state to {self._lineage}: {error}; set state-dir to a folder that can be "
                "written"
            ) from None
        with locked(lock, wait) as ours:
            yield ours

    def _sweep(self, keep: Path | None) -> None:
        for path in [*self.folder.glob("[0-9]" * 8), *self.folder.glob(".new-*")]:
            if path != keep:
                remove_marked(path, MANIFEST)


def _linked(state: Path | None, fresh: Path, but: Collection[str] = ()) -> dict[str, Any]:
    """Link, or copy, the files of a state, but these, into a folder; the manifest, with the checksums of those."""
    if state is None:
        raise FileNotFoundError("the state before has been removed")
    manifest = read_manifest(state)
    manifest["crc32"] = {name: value for name, value in manifest["crc32"].items() if name not in but}
    for name in manifest["crc32"]:
        try:
            os.link(state / name, fresh / name)
        except OSError:  # a file system without links
            shutil.copyfile(state / name, fresh / name)
    return manifest


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum
