"""The label column of a table: a class, any number of classes, or a number, told apart by their Arrow types."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fedkd_flwr.data.label_names import alike
from fedkd_flwr.data.rows import Place
from fedkd_flwr.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset
    from numpy.typing import NDArray


def strings(values: "pa.ChunkedArray", key: str, column: str, place: Place, stripped: bool) -> "pa.ChunkedArray":
    """A column as strings none of which is blank.

    Args:
        values: the column.
        key: the run-config key that names it.
        column: its name.
        place: where its rows come from.
        stripped: of surrounding white space.

    Raises:
        DataError: it holds neither text nor whole numbers nor booleans, or a blank; NaN is one.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    other = f"expected text, whole numbers or booleans: convert it, or set run-config key {key!r} to another column"
    if pa.types.is_floating(values.type):
        values = _without_nan(values)
        whole = pc.fill_null(pc.and_(pc.is_finite(values), pc.equal(pc.floor(values), values)), True)
        if (row := pc.index(whole, False).as_py()) >= 0:
            raise DataError(f"{place.row(row)} is not whole in column {column!r}, which holds {_kind(values)}, {other}")
    try:
        found = (values.cast("int64") if pa.types.is_floating(values.type) else values).cast("string")
    except pa.ArrowException:
        raise DataError(f"{place.name}: column {column!r} holds {_kind(values)}, {other}") from None
    trimmed = pc.utf8_trim_whitespace(found)
    if (row := pc.index(pc.fill_null(pc.equal(trimmed, ""), True), True).as_py()) >= 0:
        unlabelled = ", or set run-config key 'data.skip-unlabelled' to true" if key == "data.label-column" else ""
        raise DataError(
            f"{place.row(row)} has no {column!r}: fill it in or remove the row{unlabelled}",
            outside=f"a row has nothing in the column of run-config key {key!r}: its owner fills it in or removes it",
        )
    return trimmed if stripped else found


def blank(values: "pa.ChunkedArray") -> "NDArray[np.bool_]":
    """Which values are missing: null, NaN or text of white space only."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(values.type):
        values = _without_nan(values)
    missing = values.is_null()
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        missing = pc.or_(missing, pc.fill_null(pc.equal(pc.utf8_trim_whitespace(values), ""), True))
    return np.array(missing.to_pylist(), bool)


def class_lists(values: "pa.ChunkedArray", separator: str, column: str, place: Place) -> "pa.ChunkedArray":
    """The classes of each row, list of str, of texts like "a;b" or of lists; a row without text has none.

    Raises:
        DataError: the column holds neither texts nor lists of texts, or a list holds a blank.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    lists = pa.types.is_list(values.type) or pa.types.is_large_list(values.type)
    whole, text = (pa.list_(kind) if lists else kind for kind in (pa.int64(), pa.string()))
    one = values.type.value_type if lists else values.type
    if pa.types.is_floating(one):
        values = pa.chunked_array([_numbers_without_nan(values.to_pylist(), lists)], values.type)
    try:
        texts = (values.cast(whole) if pa.types.is_floating(one) else values).cast(text)
    except pa.ArrowException:
        raise DataError(
            f'{place.name}: column {column!r} holds {_kind(values)}, expected texts like "a{separator}b" or lists of '
            "texts: convert it, or set run-config key 'data.label-column' to another column"
        ) from None
    if not lists:
        split = pc.split_pattern(pc.fill_null(texts, ""), separator).to_pylist()
        return pa.chunked_array([[_stripped(row) for row in split]], pa.list_(pa.string()))
    rows = [row or [] for row in texts.to_pylist()]
    for number, row in enumerate(rows):
        if not all(name and name.strip() for name in row):
            raise DataError(f"{place.row(number)} has a blank among its {column!r}, remove it")
    return pa.chunked_array([[_stripped(row) for row in rows]], pa.list_(pa.string()))


def numbers(values: "pa.ChunkedArray", column: str, place: Place) -> "pa.ChunkedArray":
    """The column as finite float64.

    Raises:
        DataError: a value is missing, or no finite number; it is not quoted.
    """
    import pyarrow as pa

    if pa.types.is_boolean(values.type):
        raise DataError(
            f"{place.name}: column {column!r} holds bool, expected numbers: set task to 'text-classification'"
        )
    found = [_number(value) for value in values.to_pylist()]
    for row, number in enumerate(found):
        if number is None:
            raise DataError(f"{place.row(row)} has no finite number in column {column!r}: correct or remove the row")
    return pa.chunked_array([found], pa.float64())


def indices(labels: "pa.ChunkedArray", names: tuple[str, ...], called: Callable[[int], str]) -> Any:
    """Labels (str, or list of str) as indices (int64) into `names`; numbers stay as they are.

    `called` is how errors call a row.

    Raises:
        DataError: a label that is not among them; says in which row, not which.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(labels.type):
        return labels
    nested = pa.types.is_list(labels.type)
    flat = pc.list_flatten(labels) if nested else labels
    found = pc.index_in(flat, value_set=pa.array(names, flat.type)).cast("int64")
    if found.null_count:
        at = pc.index(found.is_null(), True).as_py()
        row = pc.list_parent_indices(labels)[at].as_py() if nested else at
        close = {kind for name in names if (kind := alike(name, flat[at].as_py()))}
        raise DataError(
            f"{called(row)} has a label that is none of {', '.join(names)}"
            + "".join(f" (one of them differs from it only {kind})" for kind in sorted(close))
            + ": correct it, or name all labels in run-config key 'data.labels'",
            f"the label is {flat[at].as_py()!r}",
            outside="a row has a label that is none of those that are named: its owner corrects it, or run-config key "
            "'data.labels', or node-config key 'labels', names all",
        )
    if not nested:
        return found
    return in_lists(found.combine_chunks(), labels)


def in_lists(values: "pa.Array", lists: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """`values`, one for each element of `lists`, in lists as long as these; a missing list is an empty one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths = pc.fill_null(pc.list_value_length(lists), 0)
    ends = [0, *pc.cumulative_sum(lengths).to_pylist()]
    return pa.chunked_array([pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values)])


def names_of(labels: "pa.ChunkedArray") -> tuple[str, ...]:
    """The classes that occur, sorted, as numbers where all of them are; of numbers the lowest and the highest."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(labels.type):
        low, high = (pc.min_max(labels)[end].as_py() for end in ("min", "max"))
        return f"{low:.12g}", f"{high:.12g}"
    names = sorted(pc.unique(pc.list_flatten(labels) if pa.types.is_list(labels.type) else labels).to_pylist())
    try:
        return tuple(sorted(names, key=float))
    except ValueError:
        return tuple(names)


def strata(dataset: "Dataset") -> "NDArray[Any]":
    """What a held-out part should have its share of, a number for each example: its class, rarest class, or number."""
    import numpy as np
    import pyarrow as pa

    labels = dataset.with_format("arrow")[:]["label"].combine_chunks()
    if not pa.types.is_list(labels.type):
        single: NDArray[Any] = labels.to_numpy(zero_copy_only=False)
        return single
    counts = np.bincount(labels.flatten().to_numpy())
    rarest = [min(row, key=lambda name: counts[name], default=-1) for row in labels.to_pylist()]
    return np.array(rarest, np.int64)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _without_nan(values: "pa.ChunkedArray") -> "pa.ChunkedArray":
    import pyarrow.compute as pc

    return pc.if_else(pc.fill_null(pc.is_nan(values), False), None, values)


def _numbers_without_nan(rows: list[Any], lists: bool) -> list[Any]:
    if lists:
        return [None if row is None else _numbers_without_nan(row, False) for row in rows]
    return [None if row is None or math.isnan(row) else row for row in rows]


def _stripped(row: list[str]) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in row if name.strip()))


def _kind(values: "pa.ChunkedArray") -> str:
    """The type of a column, without the names of fields, which may be data."""
    return str(values.type).partition("<")[0]
