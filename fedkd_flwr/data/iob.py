"""Sentences of tagged words: a word, a tab and its IOB tag a line, a blank line after each sentence.

A node has a folder with train.tsv and, to be scored on, test.tsv or else dev.tsv; or one file to be split. Between word
and tag there may be other columns. A tag is O, B-TYPE or I-TYPE. An I- that follows no tag of its type, as in IOB1,
is read as the B- that it stands for: so every span begins with B- (IOB2).
"""

import logging
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from fedkd_flwr.config import RunConfig
from fedkd_flwr.data.files import DataFile, stamp
from fedkd_flwr.data.node_data import NodeData, checked_labels, require_two
from fedkd_flwr.data.split import drawn, held_out
from fedkd_flwr.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

_log = logging.getLogger(__name__)

_TRAIN, _HELD_OUT = "train.tsv", ("test.tsv", "dev.tsv")
_TAG = re.compile(r"O|[BI]-.+")


@dataclass(frozen=True)
class Sentence:
    """Words, and as many tags."""

    words: tuple[str, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Sentences:
    """Those of a node; `test` is empty where its data bring no held-out ones."""

    train: tuple[Sentence, ...]
    test: tuple[Sentence, ...]


def find_iob(reference: str) -> DataFile:
    """The folder or file behind `iob:PATH` or a path.

    Raises:
        DataError: it is missing, or a folder without train.tsv.
    """
    path = Path(reference.removeprefix("iob:")).expanduser().absolute()
    if not path.exists():
        raise DataError(f"iob data {path}: no such folder or file, correct the path in {reference!r}")
    if path.is_dir() and not (path / _TRAIN).is_file():
        raise DataError(f"iob folder {path}: it has no {_TRAIN}, expected {_TRAIN} and, to be scored on, test.tsv")
    return DataFile("iob", path, tuple(number for file in _files(path) for number in stamp(file)))


def folder_of(dataset: str, partition: int, partitions: int) -> Path:
    """The folder of a simulated node: the so-manieth in the sorted folders of `iob:PATH`.

    Raises:
        DataError: there are not as many folders as nodes.
    """
    path = Path(dataset.removeprefix("iob:")).expanduser().absolute()
    if not path.is_dir():
        raise DataError(f"iob data {path}: no such folder, correct the path in {dataset!r}")
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    if len(folders) != partitions:
        names = f" ({', '.join(folder.name for folder in folders)})" if folders else ""
        raise DataError(
            f"iob data {path}: {partitions} nodes cannot have one each of its {len(folders)} folders{names}: "
            f"run as many nodes as there are folders with a {_TRAIN}"
        )
    return folders[partition]


def read_iob(data: DataFile, known: Collection[str] = ()) -> Sentences:
    """All sentences of a folder or file.

    Args:
        data: what `find_iob` found.
        known: the tags that may occur; none: any.

    Raises:
        DataError: a line has no word or no tag, its tag is no IOB tag or not known, or a file has no sentence.
    """
    train, *held_out = _files(data.path)
    return Sentences(_read(train, known), tuple(sentence for file in held_out for sentence in _read(file, known)))


@lru_cache(maxsize=64)
def load_iob(file: DataFile, config: RunConfig, name: str, partition: int, partitions: int) -> NodeData:
    """All sentences of a folder or file, those of node `name`; no two nodes share one.

    Raises:
        DataError: as `read_iob`; or they are too few, or have fewer than two tags.
    """
    import numpy as np

    where = str(file.path)
    found = _once(read_iob(file, config.label_names))
    labels = checked_labels(config.label_names or tags_of(found), where)
    train, test, limit = found.train, found.test, config.max_test_examples
    rng = np.random.default_rng((config.seed, partition))
    require_two(len(train) + bool(test), name, where)
    if test:
        test = tuple(test[row] for row in drawn(len(test), limit, rng))
    else:
        spans = np.array([int(set(sentence.tags) != {"O"}) for sentence in train])
        rows = held_out(spans, config.test_fraction, limit, rng)
        train, test = (tuple(train[row] for row in part) for part in rows)
    return NodeData(name, as_dataset(train, labels), as_dataset(test, labels), labels)


def load_test_iob(source: str, config: RunConfig, labels: tuple[str, ...]) -> "Dataset":
    """All sentences of a source; where some are held out, these."""
    found = read_iob(find_iob(source), labels)
    return as_dataset(found.test or found.train, labels)


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


def _once(found: Sentences) -> Sentences:
    """Each sentence (up to case) once, preferably to test on."""
    first: dict[tuple[str, ...], Sentence] = {}
    for sentence in (*found.test, *found.train):
        first.setdefault(tuple(word.casefold() for word in sentence.words), sentence)
    kept = {id(sentence) for sentence in first.values()}
    train, test = (tuple(s for s in part if id(s) in kept) for part in (found.train, found.test))
    return Sentences(train, test)


def _files(path: Path) -> list[Path]:
    """The file to train on and, where there is one, the file to be scored on."""
    if path.is_file():
        return [path]
    return [path / _TRAIN, *[path / name for name in _HELD_OUT if (path / name).is_file()][:1]]


def _read(path: Path, known: Collection[str]) -> tuple[Sentence, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as iob (UTF-8): {error}") from None
    sentences: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    repaired: list[int] = []
    for number, line in enumerate([*lines, ""], 1):
        word, *_, tag = (column.strip() for column in line.split("\t")) if "\t" in line else (line.strip(), "")
        if word == tag == "" or word == "-DOCSTART-":
            if words:
                sentences.append(Sentence(tuple(words), tuple(tags)))
            words, tags = [], []
            continue
        _check(path, number, word, tag if "\t" in line else None)
        if tag.startswith("I-") and (tags[-1:] or ["O"])[0][2:] != tag[2:]:
            tag = f"B-{tag[2:]}"
            repaired.append(number)
        if known and tag not in known:
            raise DataError(
                f"{path}: line {number} has a tag of a type that run-config key 'labels' does not name, "
                f"expected one of {', '.join(known)}: correct it, or name all tags there"
            )
        words.append(word)
        tags.append(tag)
    if not sentences:
        raise DataError(f"{path}: it has no sentence, expected a word, a tab and its tag a line")
    if repaired:
        _log.warning(
            "%s: %d I- tags follow no tag of their type (the first in line %d) and are read as B-",
            path,
            len(repaired),
            repaired[0],
        )
    return tuple(sentences)


def _check(path: Path, number: int, word: str, tag: str | None) -> None:
    """Whether a line is a word and an IOB tag; what it holds is private, and stays out of the error."""
    if tag is None:
        raise DataError(f"{path}: line {number} has no tab, expected a word, a tab and its tag")
    if not word:
        raise DataError(f"{path}: line {number} has no word before the tab, expected a word, a tab and its tag")
    if not _TAG.fullmatch(tag):
        raise DataError(
            f"{path}: line {number}: its last column is no tag O, B-TYPE or I-TYPE, convert other schemes (IOBES, say)"
        )
