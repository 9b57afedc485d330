"""Rows of csv and tsv files: any separator, quotes as csv writers put them, and nothing that could be read in two ways.

In csv files a quoted text may hold separators, line ends and doubled quotes. In tab-separated files a quote is often
part of a text that begins with it: such a text counts as quoted only where its quotes are whole and doubled, and where
both readings are possible the row is refused.
"""

import csv
import io
import logging
import sys
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from fedkd_flwr.data.rows import Place, Rows, row_at
from fedkd_flwr.errors import DataError

if TYPE_CHECKING:
    pass

_log = logging.getLogger(__name__)

_SEPARATORS = (",", ";", "|", "\t")

_Record = tuple[int, list[str], list[str]]
"""The first line of a record, counted from 1, its cells, and its lines as they are in the file."""


def read_separated(text: str, where: str, separator: str, wanted: Collection[str], label: str) -> Rows:
    """All rows of a file with a header; of its columns those that are wanted and there once, as text.

    Args:
        text: all of the file.
        where: how errors call the file.
        separator: one character; "": the one that separates the wanted columns in the header.
        wanted: names of columns.
        label: the name of the column of labels.

    Raises:
        DataError: a row has another number of columns than the header, its quotes do not end or could be read in two
            ways, or several separators fit. No cell is quoted.
    """
    import pyarrow as pa

    csv.field_size_limit(sys.maxsize)
    separator = separator or _detected(text, where, wanted)
    header, records = _header_and_records(text, where, separator)
    places = {name: header.index(name) for name in wanted if header.count(name) == 1}
    at = places.get(label)
    cells: dict[str, list[str]] = {name: [] for name in places}
    lines: list[int] = []
    rows_inside: list[tuple[int, set[str]]] = []
    for line, record, written in records:
        if at is not None and len(written) > 1 and (inner := _labels_inside(written, separator, len(header), at)):
            rows_inside.append((len(lines), inner))
        lines.append(line)
        for name, place in places.items():
            cells[name].append(record[place])
    for row, inner in rows_inside:
        others = {value.strip() for number, value in enumerate(cells[label]) if number != row}
        if inner & others:
            raise DataError(
                f"{Place(where, lines).row(row)} is quoted over lines that look like rows of their own: a quote is "
                "missing or stands alone; double the quotes inside of texts, or write the data as json"
            )
    columns: pa.Table = pa.table({name: pa.array(column, pa.string()) for name, column in cells.items()})
    seen = f"the {len(header)} columns, separated by {named(separator)}, of its first line"
    return Rows(columns, len(lines), header, lines, seen)


def named(separator: str) -> str:
    """A separator for messages."""
    return "tabs" if separator == "\t" else repr(separator)


def _detected(text: str, where: str, wanted: Collection[str]) -> str:
    """The separator under which the header has the wanted columns; or else the most columns."""
    first = next((line for line in io.StringIO(text, newline="") if line.strip()), "")
    columns = {separator: _names(first, separator) for separator in _SEPARATORS}
    fitting = [separator for separator in _SEPARATORS if set(wanted) <= set(columns[separator])]
    if len({tuple(columns[separator]) for separator in fitting}) > 1:
        raise DataError(
            f"{where}: its header could be separated by {' or '.join(map(named, fitting))}: "
            "set run-config key 'data.separator'"
        )
    found = fitting[0] if fitting else max(_SEPARATORS, key=lambda separator: len(columns[separator]))
    if found != ",":
        _log.info("%s: its columns are separated by %s", where, named(found))
    return found


def _names(line: str, separator: str) -> list[str]:
    try:
        return [name.strip() for name in next(csv.reader([line], delimiter=separator, strict=True), [])]
    except csv.Error:
        return []


def _header_and_records(text: str, where: str, separator: str) -> tuple[list[str], Iterator[_Record]]:
    lines = list(io.StringIO(text, newline=""))
    first = next(_quoted(lines, 0, separator, where, 0), None)
    if first is None:
        raise DataError(f"{where}: it is empty, expected a header and rows")
    line, header, written = first
    start, header = line - 1 + len(written), [name.strip() for name in header]
    records = _plain if separator == "\t" else _quoted
    return header, records(lines, start, separator, where, len(header))


def _quoted(lines: list[str], start: int, separator: str, where: str, columns: int) -> Iterator[_Record]:
    """Records from line index `start` on, as csv files are quoted; `columns`: that each has, 0: any number."""
    taken: list[str] = []

    def feed() -> Iterator[str]:
        for number in range(start, len(lines)):
            taken.append(lines[number])
            yield lines[number]

    reader = csv.reader(feed(), delimiter=separator, strict=True)
    row, line = 1, start + 1
    while True:
        taken.clear()
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(_misquoted(where, row, line, taken, "end of data" in str(error))) from None
        if record:
            if columns and len(record) != columns:
                raise DataError(_uneven(where, row, line, len(record), columns, separator, taken))
            if _escaped(record, separator, taken):
                raise DataError(_misquoted(where, row, line, taken, False))
            yield line, record, list(taken)
            row += 1
        line += len(taken)


def _plain(lines: list[str], start: int, separator: str, where: str, columns: int) -> Iterator[_Record]:
    """Records from line index `start` on, one a line, unless quotes are whole only over several."""
    row, number = 1, start
    while number < len(lines):
        written = [lines[number]]
        record = lines[number].rstrip("\r\n").split(separator)
        if any(cell.startswith('"') for cell in record):
            line, cells, many = _whole(lines, number, separator, columns) or (0, record, written)
            inner = [part.rstrip("\r\n").split(separator) for part in many[:-1]]
            if any(len(part) == columns for part in inner):
                raise DataError(
                    f"{row_at(where, row, line)} begins a quote that ends {len(inner)} lines further: it could be one "
                    "text or several rows. Double the quotes inside of texts, or write the data as json"
                )
            record, written = cells, many
        if record != [""]:
            if len(record) != columns:
                raise DataError(_uneven(where, row, number + 1, len(record), columns, separator, written))
            yield number + 1, record, written
            row += 1
        number += len(written)


def _whole(lines: list[str], number: int, separator: str, columns: int) -> _Record | None:
    """The record that begins in this line where its quotes are whole and doubled; None: they are not."""
    try:
        return next(_quoted(lines, number, separator, "", columns), None)
    except DataError:
        return None


def _labels_inside(written: list[str], separator: str, columns: int, label: int) -> set[str]:
    """What would be labels if each line of a record that is quoted over several were a row."""
    parts = [line.rstrip("\r\n").split(separator) for line in written[:-1]]
    return {part[label].strip().strip('"') for part in parts if len(part) == columns} - {""}


def _escaped(record: list[str], separator: str, written: list[str]) -> bool:
    """Whether a cell that is not quoted holds a backslash before a quote."""
    cells = [cell for cell in record if '\\"' in cell]
    whole = separator + "".join(written).rstrip("\r\n") + separator
    return separator != "\t" and any(f"{separator}{cell}{separator}" in whole for cell in cells)


def _misquoted(where: str, row: int, line: int, written: list[str], endless: bool) -> str:
    for offset, text in enumerate(written):
        if '\\"' in text:
            return (
                f"{row_at(where, row, line + offset)}: a backslash stands before a quote, where csv files double the "
                'quotes inside of texts: write "" instead of \\"'
            )
    problem = "begins a quote that does not end" if endless else "goes on after a closing quote"
    return f"{row_at(where, row, line)} {problem}: quote texts whole, and double the quotes inside of them"


def _uneven(where: str, row: int, line: int, found: int, expected: int, separator: str, written: list[str]) -> str:
    if any('\\"' in text for text in written):
        return _misquoted(where, row, line, written, False)
    return (
        f"{row_at(where, row, line)} has {found} columns where the header has {expected}, "
        f"quote texts that contain {named(separator)}"
    )
