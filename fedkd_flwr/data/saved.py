"""Data sets of the `datasets` library: a folder that `save_to_disk` wrote, or a name on the Hugging Face Hub.

`hf:PATH`, `hf:NAME` or `hf:NAME:CONFIG`. Of several splits `train` is learnt from and `test`, or else `validation`,
held out; a split whose labels are hidden (all -1) does not count. A data set without splits is split like a file. The
names of a `ClassLabel` stand for its numbers. A folder of such folders holds the data set of each simulated node.
"""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedkd_flwr.config.groups import DataConfig
from fedkd_flwr.data.files import DataFile, stamp, visible
from fedkd_flwr.data.label_columns import in_lists
from fedkd_flwr.data.rows import Rows
from fedkd_flwr.errors import DataError
from fedkd_flwr.runtime.bars import without_bars

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, DatasetDict

PREFIX = "hf:"
_MARKS = ("dataset_dict.json", "state.json")
_HELD_OUT = ("test", "validation")


def is_saved(reference: str) -> bool:
    """Whether a source is `hf:...` or a folder that `save_to_disk` wrote."""
    return reference.startswith(PREFIX) or any((Path(reference).expanduser() / mark).is_file() for mark in _MARKS)


def find_saved(reference: str) -> DataFile:
    """The data set behind `hf:PATH`, a folder, or `hf:NAME`; one on the hub counts as unchanged.

    Raises:
        DataError: a path that leads nowhere, or to a folder that `save_to_disk` did not write.
    """
    name = reference.removeprefix(PREFIX)
    path = Path(name).expanduser()
    if path.is_dir():
        if not is_saved(str(path)):
            raise DataError(f"data set {path.absolute()}: save_to_disk has not written this folder, correct the path")
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return DataFile("hf", path.absolute(), tuple(number for file in files for number in stamp(file)))
    if path.is_absolute() or name.startswith((".", "~")):
        raise DataError(f"data set {path.absolute()}: no such folder, correct the path in {reference!r}")
    return DataFile("hf", Path(name), ())


def folder_of_node(reference: str, partition: int, partitions: int) -> Path | None:
    """The data set of a simulated node: the so-manieth in the sorted folders of `hf:PATH`, where it holds data sets.

    Returns:
        Its folder; None where the source is no folder of data sets.

    Raises:
        DataError: there are not as many data sets as nodes.
    """
    path = Path(reference.removeprefix(PREFIX)).expanduser().absolute()
    if not reference.startswith(PREFIX) or not path.is_dir() or is_saved(str(path)):
        return None
    folders = [folder for folder in visible(path) if is_saved(str(folder))]
    if folders and len(folders) != partitions:
        raise DataError(
            f"data sets in {path}: {partitions} nodes cannot have one each of its {len(folders)}: run as many nodes as "
            "there are data sets"
        )
    return folders[partition] if folders else None


def read_saved(file: DataFile, label_column: str) -> tuple[dict[str, "pa.Table"], tuple[str, ...]]:
    """Rows and columns of the split to learn from, and of the one to hold out where there is one, by their names.

    Beside them the names that the data set declares for its labels, in its order; empty: it declares none.

    Raises:
        DataError: it cannot be read or downloaded, or has no split `train`.
    """
    splits = _load(file)
    if "train" not in splits:
        raise DataError(f"data set {file.path}: expected a split train but found {', '.join(splits)}")
    held_out = [name for name in _HELD_OUT if name in splits and not _hidden(splits[name], label_column)]
    found = {name: _table(splits[name]) for name in ("train", *held_out[:1])}
    return found, _names(splits["train"].features.get(label_column))


find = find_saved


def read(file: DataFile, columns: Collection[str], data: DataConfig) -> dict[str, Rows]:
    """`read_saved`, as rows; see `Tables.read`."""
    splits, declared = read_saved(file, data.label_column)
    return {split: Rows(rows, len(rows), rows.column_names, declared=declared) for split, rows in splits.items()}


@without_bars()
def _load(file: DataFile) -> "DatasetDict":
    from datasets import DatasetDict, load_dataset, load_from_disk

    try:
        if file.stamp:
            found = load_from_disk(str(file.path))
        else:
            name, _, config = str(file.path).partition(":")
            found = load_dataset(name, config or None)
    except Exception as error:  # of the many kinds that files, builders and the network raise
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        hub = "" if file.stamp else " (there is no such folder here, so it was looked for on the Hugging Face Hub)"
        raise DataError(f"data set {file.path} cannot be read: {type(error).__name__}{hub}", reason) from None
    return found if isinstance(found, DatasetDict) else DatasetDict({"train": found})


def _hidden(dataset: "Dataset", label_column: str) -> bool:
    if label_column not in dataset.column_names:
        return False
    labels = dataset.with_format("arrow")[label_column][:].combine_chunks()
    if _is_list(dataset.features[label_column]):
        labels = labels.flatten()
    return set(labels.unique().to_pylist()) <= {-1}


def _table(dataset: "Dataset") -> "pa.Table":
    """All columns, of a `ClassLabel` or a list of them the names; null where it has none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = dataset.with_format("arrow")[:].replace_schema_metadata()
    for position, (column, feature) in enumerate(dataset.features.items()):
        if names := _names(feature):
            lists = table[column]
            numbers = pc.list_flatten(lists) if _is_list(feature) else lists
            named = pa.array(names, pa.string()).take(pc.if_else(pc.less(numbers, 0), None, numbers).combine_chunks())
            found = in_lists(named, lists) if _is_list(feature) else pa.chunked_array([named])
            table = table.set_column(position, column, found)
    return table


def _is_list(feature: Any) -> bool:
    return hasattr(feature, "feature")


def _names(feature: Any) -> tuple[str, ...]:
    """The names that a feature, or each in a list of it, declares."""
    return tuple(getattr(getattr(feature, "feature", feature), "names", ()))
