"""A folder of images with a folder for each class: PATH/CLASS/*, or PATH/train/CLASS/* and PATH/test/CLASS/*.

In place of test, or unread beside it, may stand val, valid, validation or dev.
"""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedkd_flwr.data.files import DataFile, visible
from fedkd_flwr.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

_log = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
"""Of the files that are images; others are left out, with a note."""

_NAMED = 8
"""Folders at most that a warning names."""


_TRAIN, _HELD_OUT = ("train", "training"), ("test", "testing", "val", "valid", "validation", "dev")
"""Names of folders of parts in any case; of those to hold out the first that is there."""


@dataclass(frozen=True)
class _Layout:
    """Which folders of images are read.

    Attributes:
        classes: of each class whether it is held out, and its folder, sorted.
        held_out: the folder of what is held out, where there is one.
        unread: folders in which images may lie, but are not read.
    """

    classes: list[tuple[bool, Path]]
    held_out: Path | None
    unread: list[Path]


def find(reference: str) -> DataFile:
    """The folder behind `imagefolder:PATH` or a path, with a stamp of all its files.

    Raises:
        DataError: it is missing, or no folder.
    """
    path = Path(reference.removeprefix("imagefolder:")).expanduser().absolute()
    if not path.is_dir():
        raise DataError(f"image folder {path}: no such folder, correct the path in {reference!r}")
    stamp = hashlib.sha256()
    for _, folder in _layout(path).classes:
        for file in visible(folder):
            stat = file.stat()
            stamp.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\n".encode())
    return DataFile("imagefolder", path, (int.from_bytes(stamp.digest()),))


def read(data: DataFile) -> "Dataset":
    """All images of a folder, sorted: columns `image` (path), `label` (str), `test` (bool: held out), `row` (from 1).

    Raises:
        DataError: there are no images, or a folder of held-out images without any.
    """
    import pyarrow as pa
    from datasets import Dataset

    layout = _layout(data.path)
    rows: list[tuple[str, str, bool]] = []
    others: list[Path] = []
    for held, folder in layout.classes:
        for file in visible(folder):
            if file.suffix.lower() in SUFFIXES:
                rows.append((str(file), folder.name.strip(), held))
            elif not file.is_dir():
                others.append(file)
    if others:
        _log.warning("%s: %d files are no images and are left out, such as %s", data.path, len(others), others[0])
    if layout.unread:
        names = ", ".join(str(folder.relative_to(data.path)) for folder in layout.unread[:_NAMED])
        more = f" and {len(layout.unread) - _NAMED} more" if len(layout.unread) > _NAMED else ""
        _log.warning("%s: these of its folders are not read: %s%s", data.path, names, more)
    if not any(not held for *_, held in rows):
        raise DataError(
            f"{data.path}: it has no images to learn from, expected CLASS/*.png, or train/CLASS/*.png and "
            f"test/CLASS/*.png (any of {', '.join(SUFFIXES)})"
        )
    if layout.held_out is not None and not any(held for *_, held in rows):
        raise DataError(f"{layout.held_out}: it has no images, expected CLASS/*.png: fill or remove it")
    columns = dict(zip(("image", "label", "test"), zip(*rows, strict=True), strict=True))
    return Dataset(pa.table(columns | {"row": range(1, len(rows) + 1)}))


def _layout(path: Path) -> _Layout:
    """With a folder of folders to train on, that and the one to hold out; otherwise all folders are classes."""
    top = _folders(path)
    train = _first(top, _TRAIN)
    if train is None or not _folders(train):
        classes, held_out, unread = [(False, folder) for folder in top], None, []
    else:
        held_out = _first(top, _HELD_OUT)
        parts = [(False, train), *([(True, held_out)] if held_out else [])]
        classes = [(held, folder) for held, part in parts for folder in _folders(part)]
        unread = [folder for folder in top if folder not in (train, held_out)]
    return _Layout(classes, held_out, unread + [deep for _, folder in classes for deep in _folders(folder)])


def _first(folders: list[Path], names: tuple[str, ...]) -> Path | None:
    by_name = {folder.name.lower(): folder for folder in folders}
    return next((by_name[name] for name in names if name in by_name), None)


def _folders(path: Path) -> list[Path]:
    return [folder for folder in visible(path) if folder.is_dir()]
