"""Tagged words in data sets of the `datasets` library: a column of lists of words, another of lists of as many tags."""

import logging
from typing import TYPE_CHECKING

from fedkd_flwr.config.groups import DataConfig
from fedkd_flwr.data.files import DataFile
from fedkd_flwr.data.saved import find_saved, read_saved
from fedkd_flwr.data.sentences import TAG, Sentence, Sentences, as_iob2
from fedkd_flwr.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_log = logging.getLogger(__name__)


find = find_saved


def read(file: DataFile, data: DataConfig, owned: bool) -> Sentences:
    """All sentences of a data set; see `Words.read`.

    Raises:
        DataError: a column is missing or holds no lists of texts, a row has no words, a blank one or another number of
            tags, or a tag is no IOB tag or none of the run's labels.
    """
    splits, declared = read_saved(file, data.label_column)
    parts = [_sentences(rows, data, f"{file.path}, split {split}", owned) for split, rows in splits.items()]
    return Sentences(parts[0], parts[1] if len(parts) > 1 else (), declared)


def _sentences(rows: "pa.Table", data: DataConfig, where: str, owned: bool) -> tuple[Sentence, ...]:
    words = _lists(rows, "data.text-column", data.text_column, where)
    tags = _lists(rows, "data.label-column", data.label_column, where)
    owners = (
        _column(rows, "data.partition-column", data.partition_column, where).to_pylist() if owned else [""] * len(rows)
    )
    found: list[Sentence] = []
    repaired: list[int] = []
    for number, (row_words, row_tags, owner) in enumerate(zip(words, tags, owners, strict=True), 1):
        row = f"{where}: row {number}"
        if not row_words or len(row_words) != len(row_tags):
            raise DataError(f"{row} has {len(row_words)} words and {len(row_tags)} tags, expected as many, and some")
        if not all(word and word.strip() for word in row_words):
            raise DataError(f"{row} has a blank among its words, remove it")
        if not all(tag and TAG.fullmatch(tag) for tag in row_tags):
            raise DataError(f"{row} has a tag that is not O, B-TYPE or I-TYPE, convert other schemes (IOBES, say)")
        if owner is None:
            raise DataError(f"{row} has no {data.partition_column!r}: fill it in or remove the row")
        valid, places = as_iob2(row_tags, data.label_names, [row] * len(row_tags))
        repaired += [number] * bool(places)
        found.append(Sentence(tuple(row_words), valid, str(owner), number))
    if repaired:
        _log.warning(
            "%s: I- tags of %d rows follow no tag of their type (first in row %d) and are read as B-",
            where,
            len(repaired),
            repaired[0],
        )
    return tuple(found)


def _lists(rows: "pa.Table", key: str, column: str, where: str) -> list[list[str]]:
    import pyarrow as pa

    values = _column(rows, key, column, where)
    try:
        return [row or [] for row in values.cast(pa.list_(pa.string())).to_pylist()]
    except pa.ArrowException:
        raise DataError(
            f"{where}: column {column!r} holds {str(values.type).partition('<')[0]}, expected lists of texts: "
            f"set run-config key {key!r} to another column"
        ) from None


def _column(rows: "pa.Table", key: str, column: str, where: str) -> "pa.ChunkedArray":
    if column not in rows.column_names:
        raise DataError(
            f"{where}: expected a column {column!r}: "
            f"set run-config key {key!r} to one of {', '.join(rows.column_names)}",
            outside=f"run-config key {key!r} names no column of its data",
        )
    return rows[column]
