"""A node's images with their classes: those of its source, or its share of them, split into train and held out."""

from typing import TYPE_CHECKING, cast

from fedkd_flwr.data.examples import distinct_labels, with_labels
from fedkd_flwr.data.files import DataFile
from fedkd_flwr.data.label_names import checked_labels, require_different
from fedkd_flwr.data.node_data import DataReport, NodeData, require_two
from fedkd_flwr.data.partition import share_out
from fedkd_flwr.data.reading import Images, find, reader_of
from fedkd_flwr.data.settings import DataSettings
from fedkd_flwr.data.split import drawn, held_out
from fedkd_flwr.errors import DataError
from fedkd_flwr.runtime.recent import Recent

if TYPE_CHECKING:
    from datasets import Dataset


def load_images(
    file: DataFile, settings: DataSettings, name: str, partition: int, partitions: int, recent: Recent
) -> NodeData:
    """All images of a source, as those of node `name`; or where there are `partitions`, those of one.

    They are split as their source has split them, or else `data.test-fraction` of each class is held out.

    Raises:
        DataError: what is wrong with them; or so many nodes cannot share them, or one has too few.
    """
    import numpy as np

    where, key = str(file.path), ("images", file, settings)
    everything, labels = recent.get(key, lambda: _labelled(file, settings))
    images, parted = everything, any(everything["test"])
    if partitions:
        shares = recent.get(
            (*key, partitions),
            lambda: share_out(everything.shuffle(seed=settings.seed), settings, partitions, where),
        )
        name, images = shares[partition]
    require_two(len(images), name, where)
    rng, limit = np.random.default_rng((settings.seed, partition)), settings.data.max_test_examples
    if parted:
        tested = np.array(images["test"][:])
        held = np.flatnonzero(tested)
        rows = np.flatnonzero(~tested), held[drawn(len(held), limit, rng)]
    else:
        rows = held_out(np.array(images["label"][:]), settings.data.test_fraction, limit, rng)
    train, test = (images.select(part).select_columns(["image", "label"]) for part in rows)
    if not (len(train) and len(test)):
        raise DataError(
            f"{where}: node {name!r} has {len(train)} images to train on and {len(test)} to test on, expected at least "
            "one of each: add some, or run fewer nodes"
        )
    counts = np.bincount(np.array(images["label"][:]), minlength=len(labels)).tolist()
    numbers = images.select(rows[1])["row"][:]
    report = DataReport(rows=len(images), classes=tuple(counts), held_out=tuple(sorted(numbers)))
    return NodeData(name, train, test, labels, report)


def load_test_images(source: str, settings: DataSettings, labels: tuple[str, ...]) -> "Dataset":
    """All images of a source; where some are held out, these."""
    images = with_labels(_read(find(source, "images")), labels, source)
    held = [row for row, test in enumerate(images["test"]) if test]
    return images.select(held) if held else images


def _labelled(file: DataFile, settings: DataSettings) -> tuple["Dataset", tuple[str, ...]]:
    images, where = _read(file), str(file.path)
    labels = checked_labels(settings.data.label_names or distinct_labels(images), where)
    if not settings.data.label_names:
        require_different(labels, where)
    return with_labels(images, labels, where), labels


def _read(file: DataFile) -> "Dataset":
    return cast(Images, reader_of(file, "images")).read(file)
