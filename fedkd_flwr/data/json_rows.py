"""Rows of JSON: a list of objects, or an object a line."""

import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from fedkd_flwr.data.rows import Place, Rows
from fedkd_flwr.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


def read_json(text: str, where: str, wanted: Collection[str]) -> Rows:
    """All rows, of these columns; NaN and Infinity, which are no JSON but often written, count as missing.

    Raises:
        DataError: a line or row is no JSON object, or a column mixes types; says where, not what.
    """
    import pyarrow as pa

    rows, lines = _parsed(text, where)
    place = Place(where, lines)
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{place.row(index)} is no JSON object, expected {{column: value, ...}}")
    if len(rows) == 1 and rows[0] and all(isinstance(value, dict) for value in rows[0].values()):
        raise DataError(
            f"{where}: it is one object of columns, expected an object for each row: write it anew (with pandas: "
            "to_json(orient='records'))"
        )
    names = list({key: None for row in rows for key in row})
    columns = {name: _column([row.get(name) for row in rows], name, place) for name in wanted if name in names}
    return Rows(pa.table(columns), len(rows), names, lines)


def _parsed(text: str, where: str) -> tuple[list[Any], list[int]]:
    """The values, and the line of each where every one has its own."""
    if text.lstrip().startswith("["):
        return _loaded(text, where, 1), []
    lines = {number: line for number, line in enumerate(text.split("\n"), 1) if line.strip()}
    return [_loaded(line, where, number) for number, line in lines.items()], list(lines)


def _loaded(text: str, where: str, line: int) -> Any:
    try:
        return json.loads(text, parse_constant=_missing)
    except json.JSONDecodeError as error:
        place = f"line {line + error.lineno - 1} is not JSON: {error.msg} at column {error.colno}"
    except (RecursionError, ValueError):
        place = f"line {line} is no JSON that can be read: its lists are too deep or a number is too long"
    raise DataError(f"{where}: {place}")


def _missing(_: str) -> None:
    return None


def _column(values: list[Any], name: str, place: Place) -> "pa.Array":
    import pyarrow as pa

    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        kinds = [_kind(value) for value in values]
        first = next((kind for kind in kinds if kind), "")
        odd = next((row for row, kind in enumerate(kinds) if kind not in ("", first)), 0)
        raise DataError(
            f"{place.row(odd)} has another type in column {name!r} than the rows before: write all its values as text"
        ) from None


def _kind(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case _:
            return type(value).__name__
