"""The label column of a table: a class, any number of classes, or a number, told apart by their Arrow types."""

import math
from typing import TYPE_CHECKING, Any

from fedkd_flwr.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from numpy.typing import NDArray


def class_lists(values: "pa.ChunkedArray", separator: str, column: str, where: str) -> "pa.ChunkedArray":
    """The classes of each row, list of str, of texts like "a;b" or of lists; a row without text has none.

    Raises:
        DataError: the column holds neither texts nor lists of texts, or a list holds a blank.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    lists = pa.types.is_list(values.type) or pa.types.is_large_list(values.type)
    whole, text = (pa.list_(kind) if lists else kind for kind in (pa.int64(), pa.string()))
    one = values.type.value_type if lists else values.type
    try:
        texts = (values.cast(whole) if pa.types.is_floating(one) else values).cast(text)
    except pa.ArrowException:
        raise DataError(
            f'{where}: column {column!r} holds {values.type}, expected texts like "a{separator}b" or lists of texts: '
            "convert it, or set run-config key 'label-column' to another column"
        ) from None
    if not lists:
        split = pc.split_pattern(pc.fill_null(texts, ""), separator).to_pylist()
        return pa.chunked_array(
            [[[name.strip() for name in row if name.strip()] for row in split]], pa.list_(pa.string())
        )
    rows = [row or [] for row in texts.to_pylist()]
    for number, row in enumerate(rows, 1):
        if not all(name and name.strip() for name in row):
            raise DataError(f"{where}: row {number} has a blank among its {column!r}, remove it")
    return pa.chunked_array([rows], pa.list_(pa.string()))


def numbers(values: "pa.ChunkedArray", column: str, where: str) -> "pa.ChunkedArray":
    """The column as finite float64.

    Raises:
        DataError: a value is missing, or no finite number; it is not quoted.
    """
    import pyarrow as pa

    if pa.types.is_boolean(values.type):
        raise DataError(f"{where}: column {column!r} holds bool, expected numbers: set task to 'text-classification'")
    found = [_number(value) for value in values.to_pylist()]
    for row, number in enumerate(found, 1):
        if number is None:
            raise DataError(f"{where}: row {row} has no finite number in column {column!r}: correct or remove the row")
    return pa.chunked_array([found], pa.float64())


def indices(labels: "pa.ChunkedArray", names: tuple[str, ...], where: str, learnt: int) -> Any:
    """Labels (str, or list of str) as indices (int64) into `names`; numbers stay as they are.

    Raises:
        DataError: a label that is not among them; `where` says in which data, of which the rows after the first
            `learnt` are held out.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(labels.type):
        return labels
    nested = pa.types.is_list(labels.type)
    flat = pc.list_flatten(labels) if nested else labels
    found = pc.index_in(flat, value_set=pa.array(names, flat.type)).cast("int64")
    if found.null_count:
        place = pc.index(found.is_null(), True).as_py()
        row = pc.list_parent_indices(labels)[place].as_py() if nested else place
        number = f"row {row + 1}" if row < learnt else f"held-out row {row - learnt + 1}"
        raise DataError(
            f"{where}: {number} has the label {flat[place].as_py()!r}, "
            f"expected one of {', '.join(names)}: correct it, or name all labels in run-config key 'labels'"
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
