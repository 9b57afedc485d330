"""Sentences of tagged words: a word, a tab and its IOB tag a line, a blank line after each sentence.

A node has a folder with train.tsv and, to be scored on, test.tsv or else dev.tsv; or one file to be split. Between word
and tag there may be other columns. A tag is O, B-TYPE or I-TYPE. An I- that follows no tag of its type, as in IOB1,
is read as the B- that it stands for: so every span begins with B- (IOB2).
"""

import logging
from collections.abc import Collection
from pathlib import Path

from fedkd_flwr.data.files import DataFile, stamp
from fedkd_flwr.data.sentences import TAG, Sentence, Sentences, as_iob2
from fedkd_flwr.errors import DataError

_log = logging.getLogger(__name__)

_TRAIN, _HELD_OUT = "train.tsv", ("test.tsv", "dev.tsv")


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
                first = number - len(words)
                valid, places = as_iob2(tags, known, [f"{path}: line {line}" for line in range(first, number)])
                sentences.append(Sentence(tuple(words), valid))
                repaired += [first + place for place in places]
            words, tags = [], []
            continue
        _check(path, number, word, tag if "\t" in line else None)
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
    if not TAG.fullmatch(tag):
        raise DataError(
            f"{path}: line {number}: its last column is no tag O, B-TYPE or I-TYPE, convert other schemes (IOBES, say)"
        )
