"""What a node keeps between rounds, on disk, so that a kill at any instant leaves the old state or the new one.

STATE_DIR/LINEAGE/NODE/00000012/ holds the 12th state written: safetensors and a `state.json` with their
checksums. A state is written beside the old one, flushed, renamed into place, and only then is the old one removed.
"""

import json
import os
import shutil
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedkd_flwr.disk import flush
from fedkd_flwr.errors import DamagedStateError, StateError

_FORMAT = 4
_MANIFEST = "state.json"
_TENSORS = ("student", "private", "lent", "moments", "residual", "bases")


@dataclass(frozen=True)
class NodeState:
    """A node between two messages.

    Attributes:
        round: the last round in which it trained; 0 before the first.
        version: of the student.
        student: the shared trainable tensors at that version, as the server knows them.
        private: teacher, W and all else that never travels.
        lent: `Pair.lent()` as they were when it had trained; empty where its teacher keeps nothing of them.
        moments: of the optimiser, as `distillation.moments` gives them.
        residual: what the encodings of its updates have dropped so far.
        bases: where the next encoding starts from; empty where it starts afresh.
        reply: what it answered in `round`; asked again, it answers the same.
        teacher: `PairModels.teacher_digest` of the models that it is of.
    """

    round: int
    version: int
    student: Mapping[str, Tensor]
    private: Mapping[str, Tensor]
    lent: Mapping[str, Tensor] = field(default_factory=dict)
    moments: Mapping[str, Tensor] = field(default_factory=dict)
    residual: Mapping[str, Tensor] = field(default_factory=dict)
    bases: Mapping[str, Tensor] = field(default_factory=dict)
    reply: bytes = b""
    teacher: str = ""


class NodeStore:
    """The place of one node's state in one lineage."""

    def __init__(self, state_dir: Path, lineage: str, node: str) -> None:
        self._lineages = state_dir
        self._lineage = state_dir / lineage
        self.folder = self._lineage / node

    def load(self) -> NodeState | None:
        """The newest state; None where there is none.

        Raises:
            DamagedStateError: it is not what was written; names the file.
            StateError: it cannot be read, or another version of this package wrote it.
        """
        newest = self._newest()
        if newest is None:
            return None
        try:
            manifest = json.loads((newest / _MANIFEST).read_text())
            if manifest["format"] != _FORMAT:
                raise StateError(
                    f"{newest} has format {manifest['format']}, this version reads {_FORMAT}: "
                    "go on with the version of fedkd-flwr that wrote it, or remove that folder to start afresh"
                )
            for name, expected in manifest["crc32"].items():
                if _crc32(newest / name) != expected:
                    raise DamagedStateError(f"{newest / name} is damaged: its checksum differs")
            return NodeState(
                manifest["round"],
                manifest["version"],
                **{name: load_file(newest / f"{name}.safetensors") for name in _TENSORS},
                reply=(newest / "reply").read_bytes(),
                teacher=manifest["teacher"],
            )
        except (FileNotFoundError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise DamagedStateError(f"{newest} is damaged: {error}") from None
        except OSError as error:
            raise StateError(f"{newest} cannot be read: {error}; the state is left as it is") from None

    def save(self, state: NodeState, unchanged: bool = False) -> None:
        """Make `state` the newest one.

        Args:
            state: what to keep.
            unchanged: only `version` and `student` differ from the newest state; the rest is linked.

        Raises:
            StateError: the disk refuses; the old state is still there.
        """
        newest = self._newest()
        number = int(newest.name) + 1 if newest else 1
        fresh = self.folder / f".new-{os.getpid()}"
        try:
            self._sweep(keep=newest)
            fresh.mkdir(parents=True)
            for name in _TENSORS:
                if unchanged and newest and name != "student":
                    os.link(newest / f"{name}.safetensors", fresh / f"{name}.safetensors")
                else:
                    save_file(dict(getattr(state, name)), fresh / f"{name}.safetensors")
            (fresh / "reply").write_bytes(state.reply)
            manifest = {
                "format": _FORMAT,
                "round": state.round,
                "version": state.version,
                "teacher": state.teacher,
                "crc32": {path.name: _crc32(path) for path in sorted(fresh.iterdir())},
            }
            (fresh / _MANIFEST).write_text(json.dumps(manifest))
            for path in [*fresh.iterdir(), fresh]:
                flush(path)
            fresh.rename(self.folder / f"{number:08d}")
            flush(self.folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(fresh, ignore_errors=True)
            raise StateError(
                f"cannot write the node's state to {self.folder}: {error}; the state of the last "
                "message is kept. Free space there, or set state-dir to a folder that can be written"
            ) from None
        self._sweep(keep=self.folder / f"{number:08d}")

    def set_aside(self) -> Path:
        """Move a damaged state out of the way, for its owner to look at; where it is now."""
        place = next(
            place for n in count(1) if not (place := self._lineage / f"{self.folder.name}.damaged-{n}").exists()
        )
        return self.folder.rename(place)

    def prune(self, keep: int) -> None:
        """Remove this node's state in all but the `keep` lineages most recently used, this one among them."""
        node = self.folder.name
        others = [path for path in self._lineages.glob(f"*/{node}") if path.parent != self._lineage]
        others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in others[keep - 1 :]:
            shutil.rmtree(path, ignore_errors=True)
            with suppress(OSError):
                path.parent.rmdir()

    def _newest(self) -> Path | None:
        return max(self.folder.glob("[0-9]" * 8), default=None)

    def _sweep(self, keep: Path | None) -> None:
        for path in [*self.folder.glob("[0-9]" * 8), *self.folder.glob(".new-*")]:
            if path != keep:
                shutil.rmtree(path, ignore_errors=True)


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum
