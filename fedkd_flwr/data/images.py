"""A folder of images with a folder for each class: PATH/CLASS/*, or PATH/train/CLASS/* and PATH/test/CLASS/*."""

import hashlib
import logging
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from fedkd_flwr.config import RunConfig
from fedkd_flwr.data.examples import distinct_labels, with_labels
from fedkd_flwr.data.files import DataFile
from fedkd_flwr.data.node_data import NodeData, checked_labels, require_two
from fedkd_flwr.data.partition import share
from fedkd_flwr.data.split import drawn, held_out
from fedkd_flwr.errors import DataError

if TYPE_CHECKING:
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


@lru_cache(maxsize=64)
def load_images(file: DataFile, config: RunConfig, name: str, partition: int, partitions: int) -> NodeData:
    """All images of a folder, as those of node `name`; or where there are `partitions`, those of one.

    They are split as their folder has split them, or else `test-fraction` of each class is held out.

    Raises:
        DataError: as `read_images`; or so many nodes cannot share them, or one has too few.
    """
    import numpy as np

    where, images = str(file.path), read_images(file)
    labels = checked_labels(config.label_names or distinct_labels(images), where)
    images, parted = with_labels(images, labels, where), any(images["test"])
    if partitions:
        name, images = share(images.shuffle(seed=config.seed), config, partition, partitions, where)
    require_two(len(images), name, where)
    rng, limit = np.random.default_rng((config.seed, partition)), config.max_test_examples
    if parted:
        tested = np.array(images["test"][:])
        held = np.flatnonzero(tested)
        rows = np.flatnonzero(~tested), held[drawn(len(held), limit, rng)]
    else:
        rows = held_out(np.array(images["label"][:]), config.test_fraction, limit, rng)
    train, test = (images.select(part).select_columns(["image", "label"]) for part in rows)
    if not (len(train) and len(test)):
        raise DataError(
            f"{where}: node {name!r} has {len(train)} images to train on and {len(test)} to test on, expected at least "
            "one of each: add some, or run fewer nodes"
        )
    return NodeData(name, train, test, labels)


def load_test_images(source: str, config: RunConfig, labels: tuple[str, ...]) -> "Dataset":
    """All images of a source; where some are held out, these."""
    images = with_labels(read_images(find_images(source)), labels, source)
    held = [row for row, test in enumerate(images["test"]) if test]
    return images.select(held) if held else images


def _classes(path: Path) -> list[tuple[str, str, Path]]:
    """Part ("": there are no parts), class and folder of every folder of images, sorted."""
    parts = ("train", "test") if (path / "train").is_dir() else ("",)
    return [(part, folder.name, folder) for part in parts for folder in _folders(path / part)]


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
