"""A node's texts with their labels: a table, or its share of one, split into train and held out."""

from typing import TYPE_CHECKING

from fedkd_flwr.data.examples import (
    HELD_OUT,
    ROW,
    distinct_labels,
    name_of,
    read_examples,
    with_labels,
)
from fedkd_flwr.data.files import DataFile
from fedkd_flwr.data.label_columns import strata
from fedkd_flwr.data.label_names import checked_labels, require_different, require_few
from fedkd_flwr.data.node_data import DataReport, NodeData, require_two
from fedkd_flwr.data.partition import share_out
from fedkd_flwr.data.reading import find
from fedkd_flwr.data.settings import DataSettings
from fedkd_flwr.data.split import held_out, thinned
from fedkd_flwr.runtime.recent import Recent

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from numpy.typing import NDArray

_REPEATS, _CONFLICTS = "repeats", "conflicts"
"""Columns: how many later rows with this text were left out, under the same label and under another one."""


def load_texts(
    file: DataFile, settings: DataSettings, name: str, partition: int, partitions: int, recent: Recent
) -> NodeData:
    """All texts of a file, as those of node `name`; or where there are `partitions`, those of one, named by its owners.

    Raises:
        DataError: what is wrong with which column and row; so many nodes cannot share them, or one has too few.
    """
    import numpy as np

    where, limit = name_of(file), settings.data.max_test_examples
    owned = bool(partitions) and settings.data.partition == "natural"
    key = ("texts", file, settings, owned)
    dataset, labels, unlabelled = recent.get(key, lambda: _labelled(file, settings, owned))
    if partitions:
        shares = recent.get((*key, partitions), lambda: share_out(dataset, settings, partitions, where))
        name, dataset = shares[partition]
    require_two(len(dataset), name, where)
    rng = np.random.default_rng((settings.seed, partition))
    classes = strata(dataset)
    held = np.array(dataset[HELD_OUT][:] if HELD_OUT in dataset.column_names else [])
    if held.any() and not held.all():
        rows = np.flatnonzero(~held), thinned(classes, np.flatnonzero(held), limit, rng)
    else:
        rows = held_out(classes, settings.data.test_fraction, limit, rng)
    train, test = (dataset.select(part).select_columns(_columns(dataset, "label")) for part in rows)
    report = _report(dataset, rows[1], labels, unlabelled)
    return NodeData(name, train, test, labels, report)


def load_test_texts(source: str, settings: DataSettings, labels: tuple[str, ...]) -> "Dataset":
    """All texts of a source; where some are held out, these."""
    found = with_labels(read_examples(find(source, "texts"), settings).dataset, labels, source)
    if HELD_OUT in found.column_names:
        found = found.select([row for row, held in enumerate(found[HELD_OUT][:]) if held])
    return found.select_columns(_columns(found, "label"))


def _labelled(file: DataFile, settings: DataSettings, owned: bool) -> tuple["Dataset", tuple[str, ...], int]:
    """Each text once, with its label; the labels; and how many rows have none."""
    examples, where = read_examples(file, settings, owned), name_of(file)
    labels = settings.data.label_names or examples.declared
    found = checked_labels(labels or distinct_labels(examples.dataset), where)
    if not labels and settings.spec.has_classes:
        require_few(found, len(examples.dataset), where)
        require_different(found, where)
    return _without_repeats(with_labels(examples.dataset, found, where)), found, examples.unlabelled


def _columns(dataset: "Dataset", *others: str) -> list[str]:
    """The columns of texts, and these."""
    return [name for name in ("text", "pair", *others) if name in dataset.column_names]


def _without_repeats(dataset: "Dataset") -> "Dataset":
    """Each text, or pair of texts, once: the first, or the first held out where the data say what is.

    It comes with the numbers of rows that were left out for it.
    """
    labels, columns = dataset["label"][:], [dataset[name][:] for name in _columns(dataset)]
    texts = [tuple(" ".join(text.casefold().split()) for text in row) for row in zip(*columns, strict=True)]
    held = dataset[HELD_OUT][:] if HELD_OUT in dataset.column_names else [False] * len(texts)
    first: dict[tuple[str, ...], int] = {}
    for row in sorted(range(len(texts)), key=lambda row: not held[row]):
        first.setdefault(texts[row], row)
    repeats, conflicts = [0] * len(texts), [0] * len(texts)
    for row, text in enumerate(texts):
        kept = first[text]
        if kept != row:
            (repeats if labels[kept] == labels[row] else conflicts)[kept] += 1
    counted = dataset.add_column(_REPEATS, repeats).add_column(_CONFLICTS, conflicts)
    return counted.select(sorted(first.values()))


def _report(dataset: "Dataset", test: "NDArray[np.int64]", labels: tuple[str, ...], unlabelled: int) -> DataReport:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    table = dataset.with_format("arrow")[:]
    repeats, conflicts = (pc.sum(table[name]).as_py() for name in (_REPEATS, _CONFLICTS))
    found = table["label"]
    flat = pc.list_flatten(found) if pa.types.is_list(found.type) else found
    classes = () if pa.types.is_floating(flat.type) else np.bincount(flat.to_numpy(), minlength=len(labels)).tolist()
    return DataReport(
        rows=len(table) + repeats + conflicts,
        repeats=repeats,
        conflicts=conflicts,
        unlabelled=unlabelled,
        classes=tuple(classes),
        held_out=tuple(sorted(table[ROW].take(test).to_pylist())),
    )
