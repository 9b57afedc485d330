"""Sentences of tagged words: a word, a tab and its IOB tag a line, a blank line after each sentence.

A node has a folder with train.tsv and, to be scored on, test.tsv or else dev.tsv; or one file to be split. Files may
end in .txt, .conll, .iob or .bio, too, and be called as those of CoNLL-2003 (valid.txt, eng.train). Between word and
tag there may be other columns; columns are separated by tabs, or by spaces where the first line has no tab. A tag is O,
B-TYPE or I-TYPE. An I- that follows no tag of its type, as in IOB1, is read as the B- that it stands for: so every span
begins with B- (IOB2).
"""

import logging
from collections.abc import Collection
from pathlib import Path

from fedkd_flwr.config.groups import DataConfig
from fedkd_flwr.data.decoding import read_text
from fedkd_flwr.data.files import DataFile, stamp, visible
from fedkd_flwr.data.sentences import TAG, Sentence, Sentences, as_iob2
from fedkd_flwr.errors import DataError

_log = logging.getLogger(__name__)

_DOCUMENT = "-DOCSTART-"
_SUFFIXES = (".tsv", ".txt", ".conll", ".iob", ".iob2", ".bio")
_TRAIN = ("train", "eng.train")
_HELD_OUT = (("test", "eng.testb"), ("dev", "valid", "validation", "eng.testa"))
"""Names of files, with one of these suffixes or as they stand; of two kinds to hold out the first that is there."""


def find(reference: str) -> DataFile:
    """The folder or file behind `iob:PATH` or a path.

    Raises:
        DataError: it is missing, or a folder without train.tsv.
    """
    path = Path(reference.removeprefix("iob:")).expanduser().absolute()
    if not path.exists():
        raise DataError(f"iob data {path}: no such folder or file, correct the path in {reference!r}")
    if path.is_dir() and not _called(path, _TRAIN):
        raise DataError(
            f"iob folder {path}: it has no train.tsv, expected train.tsv and, to be scored on, test.tsv "
            f"(or with {', '.join(_SUFFIXES[1:])})"
        )
    return DataFile("iob", path, tuple(number for file in _files(path) for number in stamp(file)))


def folder_of(dataset: str, partition: int, partitions: int) -> Path:
    """The folder of a simulated node: the so-manieth in the sorted folders of `iob:PATH`.

    Raises:
        DataError: there are not as many folders as nodes.
    """
    path = Path(dataset.removeprefix("iob:")).expanduser().absolute()
    if not path.is_dir():
        raise DataError(f"iob data {path}: no such folder, correct the path in {dataset!r}")
    folders = [folder for folder in visible(path) if folder.is_dir()]
    if len(folders) != partitions:
        names = f" ({', '.join(folder.name for folder in folders)})" if folders else ""
        raise DataError(
            f"iob data {path}: {partitions} nodes cannot have one each of its {len(folders)} folders{names}: "
            f"run as many nodes as there are folders with a train.tsv"
        )
    return folders[partition]


def read(file: DataFile, data: DataConfig, owned: bool = False) -> Sentences:
    """All sentences of a folder or file; see `Words.read`. They have no owners.

    Raises:
        DataError: a line has no word or no tag, its tag is no IOB tag or none of the run's labels, or a file has no
            sentence.
    """
    train, *held_out = (_read(path, data.label_names, data.encoding) for path in _files(file.path))
    return Sentences(train, tuple(sentence for part in held_out for sentence in part))


def _files(path: Path) -> list[Path]:
    """The file to train on and, where there is one, the file to be scored on."""
    if path.is_file():
        return [path]
    held_out = (_called(path, names) for names in _HELD_OUT)
    return [*_called(path, _TRAIN), *next(filter(None, held_out), [])]


def _called(folder: Path, names: Collection[str]) -> list[Path]:
    """The file of this name.

    Raises:
        DataError: there are several.
    """
    found = []
    for file in visible(folder):
        name = file.name.lower()
        if file.is_file() and (name in names or (file.stem.lower() in names and file.suffix.lower() in _SUFFIXES)):
            found.append(file)
    if len(found) > 1:
        raise DataError(f"iob folder {folder}: expected one of {', '.join(file.name for file in found)}: remove others")
    return found


def _read(path: Path, known: Collection[str], encoding: str) -> tuple[Sentence, ...]:
    lines = read_text(path, encoding).split("\n")
    written = next((line for line in lines if line.strip() and not line.startswith(_DOCUMENT)), "")
    tab = "\t" if "\t" in written else None
    sentences: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    repaired: list[int] = []
    for number, line in enumerate([*lines, ""], 1):
        columns = [column.strip() for column in line.split(tab)] or [""]
        word, tag = columns[0], columns[-1] if len(columns) > 1 else ""
        if word == tag == "" or word == _DOCUMENT:
            if words:
                first = number - len(words)
                valid, places = as_iob2(tags, known, [f"{path}: line {line}" for line in range(first, number)])
                sentences.append(Sentence(tuple(words), valid, row=first))
                repaired += [first + place for place in places]
            words, tags = [], []
            continue
        _check(path, number, word, tag if len(columns) > 1 else None, "tab" if tab else "space")
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


def _check(path: Path, number: int, word: str, tag: str | None, separator: str) -> None:
    """Whether a line is a word and an IOB tag; what it holds is private, and stays out of the error."""
    expected = f"expected a word, a {separator} and its tag"
    if tag is None:
        raise DataError(f"{path}: line {number} has no {separator}, {expected}")
    if not word:
        raise DataError(
            f"{path}: line {number} has no word before the {separator}, expected a word, a {separator} and its tag"
        )
    if not TAG.fullmatch(tag):
        raise DataError(
            f"{path}: line {number}: its last column is no tag O, B-TYPE or I-TYPE, convert other schemes (IOBES, say)"
        )
