"""Examples of a table: checked texts and labels, whatever types the columns have."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from fedkd_flwr.config.sources import BUNDLED
from fedkd_flwr.data.files import DataFile
from fedkd_flwr.data.label_columns import blank, class_lists, indices, names_of, numbers, strings
from fedkd_flwr.data.reading import Tables, find, reader_of
from fedkd_flwr.data.rows import Place, Rows, row_at
from fedkd_flwr.data.settings import DataSettings
from fedkd_flwr.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

HELD_OUT = "held-out"
"""Column (bool) of examples that come in two splits; those to learn from come first."""

ROW, LINE = "row", "line"
"""Columns (int64) of examples: the number of their row, from 1 in each split, and of its line, 0: it has none."""

_KEYS = {
    "text": "data.text-column",
    "pair": "data.text-pair-column",
    "label": "data.label-column",
    "owner": "data.partition-column",
}
"""The run-config keys of the columns, by what they are of an example."""


def load_examples(source: str, settings: DataSettings) -> "Dataset":
    """All examples of `tweets`, `csv:PATH`, `json:PATH`, `parquet:PATH`, `hf:NAME` or a plain path, in their order.

    Returns:
        Columns `text`, `pair` where texts come in pairs, and `label`, all str: booleans become "false" and "true",
        whole numbers digits, labels are stripped of surrounding space. Of task multi-label `label` is a list of str, of
        regression float64. Where the data say what is held out, the column `held-out` (bool).

    Raises:
        DataError: what is wrong with which file, column and row; row 1 follows a csv file's header.
    """
    return read_examples(find(source, "texts"), settings).dataset.remove_columns([ROW, LINE])


def with_labels(dataset: "Dataset", labels: tuple[str, ...], where: str = "the data") -> "Dataset":
    """`dataset` with its `label` column (str, list of str) as indices (int64) into `labels`; numbers stay.

    Raises:
        DataError: a label that is not among them; `where` says in which data.
    """
    from datasets import Dataset

    table = dataset.with_format("arrow")[:]
    position = table.column_names.index("label")
    found = indices(table["label"], labels, lambda row: _called(dataset[row], where))
    return Dataset(table.replace_schema_metadata().set_column(position, "label", found))


def distinct_labels(dataset: "Dataset") -> tuple[str, ...]:
    """The labels that occur, sorted, as numbers where all of them are; of numbers the lowest and the highest."""
    return names_of(dataset.with_format("arrow")[:]["label"])


@dataclass(frozen=True)
class Examples:
    """The examples of a table.

    Attributes:
        dataset: as `load_examples` has them, with the columns `row` and `line`.
        declared: names of the labels, where the data declare them, in their order.
        unlabelled: how many rows were left out because they have no label.
    """

    dataset: "Dataset"
    declared: tuple[str, ...]
    unlabelled: int


def read_examples(file: DataFile, settings: DataSettings, owned: bool = False) -> Examples:
    """All examples of a table; where `owned`, with the partition column (str) as `owner`.

    Raises:
        DataError: as `load_examples`.
    """
    from datasets import Dataset
    from pyarrow import array, concat_tables

    data, tables = settings.data, cast(Tables, reader_of(file, "texts"))
    columns = {"text": data.text_column, "label": data.label_column}
    if data.text_pair_column:
        columns["pair"] = data.text_pair_column
    if owned:
        columns["owner"] = data.partition_column
    parts: list[pa.Table] = []
    declared: tuple[str, ...] = ()
    unlabelled = 0
    for split, rows in tables.read(file, columns.values(), data).items():
        where = f"{file.path}, split {split}" if split else name_of(file)
        part, missing = _examples(rows, columns, settings, where)
        parts.append(part.append_column(HELD_OUT, array([bool(parts)] * len(part))))
        declared, unlabelled = rows.declared, unlabelled + missing
    table = concat_tables(parts) if len(parts) > 1 else parts[0].drop_columns(HELD_OUT)
    return Examples(Dataset(table), declared, unlabelled)


def name_of(file: DataFile) -> str:
    """How errors call the data of a file."""
    return f"dataset {BUNDLED!r}" if file.kind == BUNDLED else str(file.path)


def _examples(rows: Rows, columns: dict[str, str], settings: DataSettings, where: str) -> tuple["pa.Table", int]:
    """Checked columns, by what they are of an example; and how many rows without a label are left out."""
    import numpy as np
    import pyarrow as pa

    for role, column in columns.items():
        _require(rows, column, _KEYS[role], where)
    kept = np.arange(rows.count)
    if settings.data.skip_unlabelled:
        kept = kept[~blank(rows.table[settings.data.label_column])]
    lines = (np.array(rows.lines, np.int64) if rows.lines else np.zeros(rows.count, np.int64))[kept]
    table, place = rows.table.take(kept), Place(where, lines.tolist() if rows.lines else (), (kept + 1).tolist())
    found = {role: _values(table[column], role, column, settings, place) for role, column in columns.items()}
    return pa.table({**found, ROW: pa.array(kept + 1), LINE: pa.array(lines, pa.int64())}), rows.count - len(kept)


def _called(example: dict[str, Any], where: str) -> str:
    """How errors call an example: by its file, or by its row."""
    if "image" in example:
        return str(example["image"])
    return row_at(where, example[ROW], example[LINE], example.get(HELD_OUT, False))


def _require(rows: Rows, column: str, key: str, where: str) -> None:
    """A table has this column, once."""
    if (count := list(rows.names).count(column)) == 1:
        return
    own = key.removeprefix("data.")
    outside = f"run-config key {key!r} names no column of its data: correct it, or set node-config key {own!r}"
    if not rows.header:
        raise DataError(
            f"{where}: expected one column {column!r} but found {count}: "
            f"set run-config key {key!r} to one of {', '.join(rows.names)}",
            outside=outside,
        )
    raise DataError(
        f"{where}: expected one column {column!r} but found {count} among {rows.header}: is that line a header? "
        f"Add one, or set run-config key {key!r} to a name in it",
        f"that line has {', '.join(rows.names)}",
        outside,
    )


def _values(values: "pa.ChunkedArray", role: str, column: str, settings: DataSettings, place: Place) -> Any:
    """The column that is a text, the label or the owner of the examples."""
    if role == "label" and settings.spec.labels == "several":
        return class_lists(values, settings.data.label_separator, column, place)
    if role == "label" and settings.spec.labels == "number":
        return numbers(values, column, place)
    return strings(values, _KEYS[role], column, place, stripped=role in ("label", "owner"))
