"""A folder of images with a folder for each class: PATH/CLASS/*, or PATH/train/CLASS/* and PATH/test/CLASS/*."""

import hashlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fedkd_flwr.config import RunConfig
from fedkd_flwr.data.files import DataFile
from fedkd_flwr.data.split import held_out
from fedkd_flwr.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

_log = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
"""Of the files that are images; others are left out, with a note."""


def find_images(reference: str) -> DataFile:
    """The folder behind `imagefolder:PATH` or a path, with a stamp of all its files.

    Raises:
        DataError: it is missing, or no folder.
    """
    path = Path(reference.removeprefix("imagefolder:")).expanduser().absolute()
    if not path.is_dir():
        raise DataError(f"image folder {path}: no such folder, correct the path in {reference!r}")
    stamp = hashlib.sha256()
    for folder in sorted({folder for _, _, folder in _classes(path)}):
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                stat = entry.stat()
                stamp.update(f"{entry.path}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\n".encode())
    return DataFile("imagefolder", path, (int.from_bytes(stamp.digest()),))


def read_images(data: DataFile) -> "Dataset":
    """All images of a folder, sorted: columns `image` (path), `label` (str) and `test` (bool: from the test folder).

    Raises:
        DataError: there are no images, or a test folder without any.
    """
    import pyarrow as pa
    from datasets import Dataset

    rows: list[tuple[str, str, bool]] = []
    others: list[Path] = []
    for part, label, folder in _classes(data.path):
        for file in sorted(folder.iterdir()):
            if file.suffix.lower() in SUFFIXES:
                rows.append((str(file), label, part == "test"))
            elif not file.name.startswith("."):
                others.append(file)
    if others:
        _log.warning("%s: %d files are no images and are left out, such as %s", data.path, len(others), others[0])
    if not any(not test for *_, test in rows):
        raise DataError(
            f"{data.path}: it has no images to learn from, expected CLASS/*.png, or train/CLASS/*.png and "
            f"test/CLASS/*.png (any of {', '.join(SUFFIXES)})"
        )
    if (data.path / "test").is_dir() and (data.path / "train").is_dir() and not any(test for *_, test in rows):
        raise DataError(f"{data.path / 'test'}: it has no images, expected CLASS/*.png: fill or remove it")
    columns = dict(zip(("image", "label", "test"), zip(*rows, strict=True), strict=True))
    return Dataset(pa.table(columns))


def split_images(
    images: "Dataset", parted: bool, config: RunConfig, rng: "np.random.Generator"
) -> tuple["Dataset", "Dataset"]:
    """Images to train on and to test on: as their folder has split them, else `test-fraction` of each class held out.

    Args:
        images: columns `image`, `label` (int64) and `test`, at least two.
        parted: whether their folder has split them.
        config: `test-fraction` and `max-test-examples`.
        rng: the only source of randomness.
    """
    import numpy as np

    labels, test = np.array(images["label"][:]), np.array(images["test"][:])
    if parted:
        rows = np.flatnonzero(~test), np.flatnonzero(test)
        if 0 < config.max_test_examples < len(rows[1]):
            rows = rows[0], np.sort(rng.permutation(rows[1])[: config.max_test_examples])
    else:
        rows = held_out(labels, config.test_fraction, config.max_test_examples, rng)
    train, held = (images.select(part).select_columns(["image", "label"]) for part in rows)
    return train, held


def _classes(path: Path) -> list[tuple[str, str, Path]]:
    """Part ("": there are no parts), class and folder of every folder of images, sorted."""
    parts = ("train", "test") if (path / "train").is_dir() else ("",)
    return [(part, folder.name, folder) for part in parts for folder in _folders(path / part)]


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
