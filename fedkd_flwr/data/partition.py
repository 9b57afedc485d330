"""How simulated nodes share one data set."""

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from fedkd_flwr.data.settings import DataSettings
from fedkd_flwr.errors import DataError
from fedkd_flwr.runtime.bars import without_bars

Scheme = Literal["iid", "dirichlet", "shard", "natural"]

_FEWEST = 2
"""Rows that a part has at least."""

_SHARDS = 2
"""Blocks that a node has of `shard`."""

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from numpy.typing import NDArray


@without_bars()
def share_out(dataset: "Dataset", settings: DataSettings, partitions: int, where: str) -> "list[tuple[str, Dataset]]":
    """Name and examples of each partition; together they are the whole data set.

    Natural partitions are those of the owners. All others are drawn with the run's seed:

    - iid: of equal size, by chance;
    - dirichlet: of each label the nodes' shares are drawn from Dirichlet(`data.dirichlet-alpha`);
    - shard: sorted by label and cut into equal blocks, of which each node has two (McMahan et al. 2017).

    Args:
        dataset: columns `text`, `label` (int64, for shards also float64; none where no label decides) and, for natural
            partitions, `owner` (str).
        settings: `partition`, its column, concentration, and `seed`.
        partitions: number of nodes.
        where: how errors call the data.

    Raises:
        DataError: so many nodes cannot share this data set.
    """
    if settings.data.partition == "natural":
        return _natural(dataset, settings.data.partition_column, partitions, where)
    return [(f"partition-{number}", part) for number, part in enumerate(_drawn(dataset, settings, partitions, where))]


def share_rows(
    owners: Sequence[str], learnt: int, settings: DataSettings, partitions: int, where: str
) -> list[tuple[str, "NDArray[np.int64]", "NDArray[np.int64]"]]:
    """`share_out` of examples that no label decides on, shared out together with those held out.

    Args:
        owners: of every example, first of those to learn from.
        learnt: how many these are.

    Returns:
        Of each partition its name, its rows to learn from, and its held-out rows counted from the first of them; all
        ascending.
    """
    import numpy as np
    from datasets import Dataset

    everything = Dataset.from_dict({"row": range(len(owners)), "owner": owners})
    found = []
    for name, mine in share_out(everything, settings, partitions, where):
        rows = np.sort(np.array(mine["row"][:], np.int64))
        found.append((name, rows[rows < learnt], rows[rows >= learnt] - learnt))
    return found


@without_bars()
def partition(
    dataset: "Dataset",
    num_partitions: int,
    scheme: Scheme = "iid",
    *,
    alpha: float = 0.5,
    shards: int = _SHARDS,
    column: str | None = None,
    seed: int = 0,
) -> "list[Dataset]":
    """Share out a data set; each row is in one part.

    Args:
        dataset: the rows, with any columns.
        num_partitions: number of parts, at least 1.
        scheme: `iid`: equal sizes, by chance; `dirichlet`: the parts' shares of each label are drawn from
            Dirichlet(`alpha`); `shard`: sorted by label and cut into equal blocks, `shards` for each part; `natural`:
            rows with the same value in `column` stay together.
        alpha: concentration of `dirichlet`; smaller is more skewed.
        shards: blocks that a part has of `shard`.
        column: column of the label, by default `label`; of `natural` the column of the owner.
        seed: decides the draw.

    Returns:
        The parts, each with all columns.

    Raises:
        DataError: the data set cannot be shared out so; says why.
    """
    from datasets import Dataset

    if not isinstance(dataset, Dataset):
        raise DataError(f"partition takes a datasets.Dataset, not a {type(dataset).__name__}: name one of its splits")
    if scheme not in (known := get_args(Scheme)):
        raise DataError(f"scheme {scheme!r} is unknown: expected {', '.join(known)}")
    if num_partitions < 1:
        raise DataError(f"num_partitions is {num_partitions}: expected 1 or more")
    if scheme == "natural" and column is None:
        raise DataError("scheme 'natural' needs the name of the column that tells whose a row is: set column")
    column = column or "label"
    if scheme != "iid" and column not in dataset.column_names:
        raise DataError(f"the data set has no column {column!r} but {', '.join(dataset.column_names)}: set column")
    if scheme != "iid" and None in dataset.unique(column):
        row = dataset[column][:].index(None) + 1
        raise DataError(f"row {row} has nothing in column {column!r}: leave such rows out, or set column")
    if scheme == "natural":
        return [part for _, part in _owned(dataset, column, num_partitions, "the data set", "scheme")]
    parts = _draw(dataset, num_partitions, scheme, column, alpha, shards, seed)
    if parts is None:
        setting = f"alpha {alpha}" if scheme == "dirichlet" else f"scheme {scheme!r}"
        raise DataError(
            f"{setting} leaves one of {num_partitions} parts fewer than 2 of {len(dataset)} rows: "
            f"{'raise alpha or make' if scheme == 'dirichlet' else 'make'} fewer parts"
        )
    return parts


def _natural(dataset: "Dataset", column: str, partitions: int, where: str) -> "list[tuple[str, Dataset]]":
    return _owned(dataset, "owner", partitions, where, "data.partition", column)


def _owned(
    dataset: "Dataset", column: str, parts: int, where: str, key: str, called: str = ""
) -> "list[tuple[str, Dataset]]":
    """Of each part the owners, of whom each has all of his rows, and these."""
    rows: dict[str, list[int]] = {}
    for row, owner in enumerate(dataset[column][:]):
        rows.setdefault(owner, []).append(row)
    owners = sorted(rows)
    if parts > len(owners):
        raise DataError(
            f"{where}: {parts} nodes cannot share the {len(owners)} values of column {(called or column)!r}: "
            f"run at most {len(owners)} nodes, or set {key} to 'iid' or 'dirichlet'"
        )
    mine = [owners[part::parts] for part in range(parts)]
    return [
        ("+".join(map(str, some)), dataset.select(sorted(row for owner in some for row in rows[owner])))
        for some in mine
    ]


def _drawn(dataset: "Dataset", settings: DataSettings, partitions: int, where: str) -> "list[Dataset]":
    data, seed = settings.data, settings.seed
    parts = _draw(dataset, partitions, data.partition, "label", data.dirichlet_alpha, _SHARDS, seed)
    if parts is None:
        scheme = data.partition
        alpha = scheme == "dirichlet"
        setting = f"data.dirichlet-alpha {data.dirichlet_alpha}" if alpha else f"data.partition {scheme!r}"
        raise DataError(
            f"{where}: {setting} leaves one of {partitions} nodes fewer than 2 of its {len(dataset)} examples: "
            f"{'raise data.dirichlet-alpha or run' if alpha else 'run'} fewer nodes"
        )
    return parts


def _draw(
    dataset: "Dataset", partitions: int, scheme: str, column: str, alpha: float, shards: int, seed: int
) -> "list[Dataset] | None":
    """The parts; None where one would have fewer than 2 rows."""
    partitioner = _partitioner(len(dataset), partitions, scheme, column, alpha, shards, seed)
    partitioner.dataset = dataset if scheme == "dirichlet" else dataset.shuffle(seed=seed)
    try:
        with warnings.catch_warnings(action="ignore"):
            parts = [partitioner.load_partition(number) for number in range(partitions)]
    except ValueError:
        return None
    return parts if min(map(len, parts)) >= _FEWEST else None


def _partitioner(rows: int, partitions: int, scheme: str, column: str, alpha: float, shards: int, seed: int) -> Any:
    from flwr_datasets import partitioner

    match scheme:
        case "dirichlet":
            return partitioner.DirichletPartitioner(
                partitions, column, alpha=alpha, min_partition_size=_FEWEST, seed=seed
            )
        case "shard":
            size = math.ceil(rows / (partitions * shards))
            return partitioner.ShardPartitioner(
                partitions, column, shard_size=size, keep_incomplete_shard=True, seed=seed
            )
        case _:
            return partitioner.IidPartitioner(partitions)
