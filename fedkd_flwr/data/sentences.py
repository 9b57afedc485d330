"""Sentences of tagged words: tags O, B-TYPE and I-TYPE, held out and shared out whole."""

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fedkd_flwr.data.label_names import checked_labels
from fedkd_flwr.data.node_data import DataReport, NodeData, require_two
from fedkd_flwr.data.settings import DataSettings
from fedkd_flwr.data.split import drawn, held_out
from fedkd_flwr.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

TAG = re.compile(r"O|[BI]-.+")


@dataclass(frozen=True)
class Sentence:
    """Words and as many tags.

    Attributes:
        owner: whose they are, where the data say it.
        row: of a data set, or the line of a file in which it begins, from 1.
        repeats: sentences of the same words that were left out for it, with the same tags.
        conflicts: ... and with other tags.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]
    owner: str = ""
    row: int = field(default=0, compare=False)
    repeats: int = field(default=0, compare=False)
    conflicts: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Sentences:
    """Those of a node; `test` is empty where its data bring no held-out ones, `declared` where they name no tags."""

    train: tuple[Sentence, ...]
    test: tuple[Sentence, ...]
    declared: tuple[str, ...] = ()


def as_iob2(tags: Sequence[str], known: Collection[str], where: Sequence[str]) -> tuple[tuple[str, ...], list[int]]:
    """IOB2 tags of a sentence, and the places of those that were I- and follow no tag of their type.

    Args:
        tags: IOB2 or IOB1.
        known: the tags that may occur; none: any.
        where: how an error calls each place.

    Raises:
        DataError: a tag is not known.
    """
    found: list[str] = []
    repaired: list[int] = []
    for place, tag in enumerate(tags):
        if tag.startswith("I-") and (found[-1:] or ["O"])[0][2:] != tag[2:]:
            tag = f"B-{tag[2:]}"
            repaired.append(place)
        if known and tag not in known:
            raise DataError(
                f"{where[place]} has a tag of a type that run-config key 'data.labels' does not name, "
                f"expected one of {', '.join(known)}: correct it, or name all tags there",
                outside="a word has a tag that is none of those that are named: its owner corrects it, or run-config "
                "key 'data.labels', or node-config key 'labels', names all",
            )
        found.append(tag)
    return tuple(found), repaired


def node_data(
    found: Sentences, settings: DataSettings, name: str, partition: int, labels: tuple[str, ...], where: str
) -> NodeData:
    """These sentences, each of which is there once, as those of node `name`; `where` says in errors whose they are.

    Raises:
        DataError: they are too few, or there are fewer than two labels.
    """
    import numpy as np

    checked_labels(labels, where)
    train, test, limit = found.train, found.test, settings.data.max_test_examples
    rng = np.random.default_rng((settings.seed, partition))
    require_two(len(train) + bool(test), name, where)
    if test:
        test = tuple(test[row] for row in drawn(len(test), limit, rng))
    else:
        spans = np.array([int(set(sentence.tags) != {"O"}) for sentence in train])
        rows = held_out(spans, settings.data.test_fraction, limit, rng)
        train, test = (tuple(train[row] for row in part) for part in rows)
    kept = found.train + found.test
    repeats, conflicts = (sum(getattr(s, count) for s in kept) for count in ("repeats", "conflicts"))
    report = DataReport(
        rows=len(kept) + repeats + conflicts,
        repeats=repeats,
        conflicts=conflicts,
        held_out=tuple(sorted(sentence.row for sentence in test)),
    )
    return NodeData(name, as_dataset(train, labels), as_dataset(test, labels), labels, report)


def tags_of(sentences: Sentences) -> tuple[str, ...]:
    """O, and B- and I- of each type that occurs, sorted by type."""
    types = {tag[2:] for part in (sentences.train, sentences.test) for s in part for tag in s.tags if tag != "O"}
    return ("O", *(f"{prefix}-{kind}" for kind in sorted(types) for prefix in "BI"))


def as_dataset(sentences: Collection[Sentence], labels: tuple[str, ...]) -> "Dataset":
    """Columns `words` (list of str) and `label` (list of int64 indices into `labels`)."""
    import pyarrow as pa
    from datasets import Dataset

    index = {label: number for number, label in enumerate(labels)}
    words = pa.array([sentence.words for sentence in sentences], pa.list_(pa.string()))
    label = pa.array([[index[tag] for tag in sentence.tags] for sentence in sentences], pa.list_(pa.int64()))
    return Dataset(pa.table({"words": words, "label": label}))


def once(found: Sentences) -> Sentences:
    """Each sentence (up to case) once, preferably to test on, with the numbers of those left out for it."""
    alike: dict[tuple[str, ...], list[Sentence]] = defaultdict(list)
    for sentence in (*found.test, *found.train):
        alike[tuple(word.casefold() for word in sentence.words)].append(sentence)
    kept: dict[int, Sentence] = {}
    for first, *others in alike.values():
        repeats = sum(other.tags == first.tags for other in others)
        kept[id(first)] = replace(first, repeats=repeats, conflicts=len(others) - repeats)
    train, test = (tuple(kept[id(s)] for s in part if id(s) in kept) for part in (found.train, found.test))
    return Sentences(train, test, found.declared)
