"""Examples of a table: checked texts and labels, whatever types the columns have."""

from typing import TYPE_CHECKING, Any

from fedkd_flwr.config import RunConfig
from fedkd_flwr.data.files import DataFile, stamp
from fedkd_flwr.data.label_columns import class_lists, indices, names_of, numbers
from fedkd_flwr.data.saved import find_saved, is_saved, read_saved
from fedkd_flwr.data.tweets import tweets, tweets_file
from fedkd_flwr.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

HELD_OUT = "held-out"
"""Column (bool) of examples that come in two splits; those to learn from come first."""


def load_examples(source: str, config: RunConfig) -> "Dataset":
    """All examples of `tweets`, `csv:PATH`, `json:PATH`, `parquet:PATH`, `hf:NAME` or a plain path, in their order.

    Returns:
        Columns `text`, `pair` where texts come in pairs, and `label`, all str: booleans become "false" and "true",
        whole numbers digits. Of task multi-label `label` is a list of str, of regression float64. Where the data say
        what is held out, the column `held-out` (bool).

    Raises:
        DataError: what is wrong with which file, column and row; row 1 follows a csv file's header.
    """
    return read_examples(locate(source), config)


def with_labels(dataset: "Dataset", labels: tuple[str, ...], where: str = "the data") -> "Dataset":
    """`dataset` with its `label` column (str, list of str) as indices (int64) into `labels`; numbers stay.

    Raises:
        DataError: a label that is not among them; `where` says in which data.
    """
    from datasets import Dataset

    table = dataset.with_format("arrow")[:]
    learnt = len(table) - sum(table[HELD_OUT].to_pylist()) if HELD_OUT in table.column_names else len(table)
    position = table.column_names.index("label")
    found = indices(table["label"], labels, where, learnt)
    return Dataset(table.replace_schema_metadata().set_column(position, "label", found))


def distinct_labels(dataset: "Dataset") -> tuple[str, ...]:
    """The labels that occur, sorted, as numbers where all of them are; of numbers the lowest and the highest."""
    return names_of(dataset.with_format("arrow")[:]["label"])


def locate(source: str) -> DataFile:
    """The file of a source as it is now, also that of the bundled tweets."""
    return DataFile("tweets", tweets_file(), stamp(tweets_file())) if source == "tweets" else find(source)


def find(source: str) -> DataFile:
    """The file, or the data set of the `datasets` library, behind a source."""
    return find_saved(source) if is_saved(source) else DataFile.find(source)


def read_examples(file: DataFile, config: RunConfig, owned: bool = False) -> "Dataset":
    """As `load_examples`; where `owned`, with the partition column (str) as `owner`."""
    from datasets import Dataset
    from pyarrow import array, concat_tables
    from pyarrow import table as arrow_table

    columns = {"text": config.text_column, "label": config.label_column}
    if config.text_pair_column:
        columns["pair"] = config.text_pair_column
    if owned:
        columns["owner"] = config.partition_column
    if file.kind == "hf":
        parts = []
        for split, rows in read_saved(file, config.label_column).items():
            where = f"{file.path}, split {split}"
            found = {role: _values(rows, role, name, config, where) for role, name in columns.items()}
            parts.append(arrow_table(found | {HELD_OUT: array([split != "train"] * len(rows))}))
        return Dataset(concat_tables(parts) if len(parts) > 1 else parts[0].drop_columns(HELD_OUT))
    table = tweets() if file.kind == "tweets" else file.read(columns.values())
    return Dataset(
        arrow_table({role: _values(table, role, name, config, name_of(file)) for role, name in columns.items()})
    )


def name_of(file: DataFile) -> str:
    """How errors call the data of a file."""
    return "dataset 'tweets'" if file.kind == "tweets" else str(file.path)


def _values(table: "pa.Table", role: str, column: str, config: RunConfig, where: str) -> Any:
    """The column that is the text, label or owner of the examples."""
    keys = {"text": "text-column", "pair": "text-pair-column", "label": "label-column", "owner": "partition-column"}
    key = keys[role]
    if (count := table.column_names.count(column)) != 1:
        raise DataError(
            f"{where}: expected one column {column!r} but found {count}: "
            f"set run-config key {key!r} to one of {', '.join(table.column_names)}"
        )
    if role == "label" and config.task == "multi-label":
        return class_lists(table[column], config.label_separator, column, where)
    if role == "label" and config.task == "regression":
        return numbers(table[column], column, where)
    return _strings(table[column], key, column, where)


def _strings(values: "pa.ChunkedArray", key: str, column: str, where: str) -> Any:
    """A column as strings none of which is blank; `key` is the run-config key that names it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        strings = (values.cast("int64") if pa.types.is_floating(values.type) else values).cast("string")
    except pa.ArrowException:
        raise DataError(
            f"{where}: column {column!r} holds {values.type}, expected text, whole numbers or booleans: "
            f"convert it, or set run-config key {key!r} to another column"
        ) from None
    blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(strings), ""), True)
    if (row := pc.index(blank, True).as_py()) >= 0:
        raise DataError(f"{where}: row {row + 1} has no {column!r}: fill it in or remove the row")
    return strings
