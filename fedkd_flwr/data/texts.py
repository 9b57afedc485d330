"""A node's texts with their labels: a table, or its share of one, split into train and held out."""

import logging
from functools import lru_cache
from typing import TYPE_CHECKING

from fedkd_flwr.config import RunConfig
from fedkd_flwr.data.examples import HELD_OUT, distinct_labels, load_examples, name_of, read_examples, with_labels
from fedkd_flwr.data.files import DataFile
from fedkd_flwr.data.label_columns import strata
from fedkd_flwr.data.node_data import NodeData, checked_labels, require_two
from fedkd_flwr.data.partition import share
from fedkd_flwr.data.saved import class_names
from fedkd_flwr.data.split import held_out, thinned

if TYPE_CHECKING:
    from datasets import Dataset

_log = logging.getLogger(__name__)


@lru_cache(maxsize=64)
def load_texts(file: DataFile, config: RunConfig, name: str, partition: int, partitions: int) -> NodeData:
    """All texts of a file, as those of node `name`; or where there are `partitions`, those of one, named by its owners.

    Raises:
        DataError: what is wrong with which column and row; so many nodes cannot share them, or one has too few.
    """
    import numpy as np

    where, limit = name_of(file), config.max_test_examples
    dataset, labels = _labelled(file, config, bool(partitions) and config.partition == "natural")
    if partitions:
        name, dataset = share(dataset, config, partition, partitions, where)
    require_two(len(dataset), name, where)
    rng = np.random.default_rng((config.seed, partition))
    classes = strata(dataset)
    held = np.array(dataset[HELD_OUT][:] if HELD_OUT in dataset.column_names else [])
    if held.any() and not held.all():
        rows = np.flatnonzero(~held), thinned(classes, np.flatnonzero(held), limit, rng)
    else:
        rows = held_out(classes, config.test_fraction, limit, rng)
    kept = [name for name in ("text", "pair", "label") if name in dataset.column_names]
    train, test = (dataset.select(part).select_columns(kept) for part in rows)
    return NodeData(name, train, test, labels)


def load_test_texts(source: str, config: RunConfig, labels: tuple[str, ...]) -> "Dataset":
    """All texts of a source; where some are held out, these."""
    found = with_labels(load_examples(source, config), labels, source)
    if HELD_OUT in found.column_names:
        found = found.select([row for row, held in enumerate(found[HELD_OUT][:]) if held]).remove_columns(HELD_OUT)
    return found


@lru_cache(maxsize=4)
def _labelled(file: DataFile, config: RunConfig, owned: bool) -> tuple["Dataset", tuple[str, ...]]:
    dataset, where = read_examples(file, config, owned), name_of(file)
    declared = class_names(file, config.label_column) if file.kind == "hf" else ()
    labels = checked_labels(config.label_names or declared or distinct_labels(dataset), where)
    return _without_repeats(with_labels(dataset, labels, where), where), labels


def _without_repeats(dataset: "Dataset", where: str) -> "Dataset":
    """Each text, or pair of texts, once: the first, or the first held out where the data say what is."""
    columns = [dataset[name][:] for name in ("text", "pair") if name in dataset.column_names]
    texts = [tuple(" ".join(text.casefold().split()) for text in row) for row in zip(*columns, strict=True)]
    held = dataset[HELD_OUT][:] if HELD_OUT in dataset.column_names else [False] * len(texts)
    first: dict[tuple[str, ...], int] = {}
    for row in sorted(range(len(texts)), key=lambda row: not held[row]):
        first.setdefault(texts[row], row)
    if len(first) == len(texts):
        return dataset
    _log.info(
        "%s: %d of %d rows repeat an earlier text and are left out",
        where,
        len(texts) - len(first),
        len(texts),
    )
    return dataset.select(sorted(first.values()))
