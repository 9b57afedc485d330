"""How simulated nodes share one data set."""

import warnings
from typing import TYPE_CHECKING

from fedkd_flwr.config import RunConfig
from fedkd_flwr.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


def share(dataset: "Dataset", config: RunConfig, partition: int, partitions: int, where: str) -> tuple[str, "Dataset"]:
    """Name and examples of partition `partition` of `partitions`; together they are the whole data set.

    Args:
        dataset: columns `text`, `label` (int64) and, for natural partitions, `owner` (str).
        config: `partition`, its column or concentration, and `seed`.
        partition: at least 0, below `partitions`.
        partitions: number of nodes.
        where: how errors call the data.

    Raises:
        DataError: so many nodes cannot share this data set.
    """
    match config.partition:
        case "natural":
            return _natural(dataset, config.partition_column, partition, partitions, where)
        case "iid":
            return f"partition-{partition}", _iid(dataset, config.seed, partition, partitions)
        case "dirichlet":
            return f"partition-{partition}", _dirichlet(dataset, config, partition, partitions, where)


def _natural(dataset: "Dataset", column: str, partition: int, partitions: int, where: str) -> tuple[str, "Dataset"]:
    owners = sorted(dataset.unique("owner"))
    if partitions > len(owners):
        raise DataError(
            f"{where}: {partitions} nodes cannot share the {len(owners)} values of column {column!r}: "
            f"run at most {len(owners)} nodes, or set partition to 'iid' or 'dirichlet'"
        )
    mine = owners[partition::partitions]
    return "+".join(mine), dataset.select([i for i, owner in enumerate(dataset["owner"][:]) if owner in mine])


def _iid(dataset: "Dataset", seed: int, partition: int, partitions: int) -> "Dataset":
    from datasets import disable_progress_bars
    from flwr_datasets.partitioner import IidPartitioner

    disable_progress_bars()
    partitioner = IidPartitioner(partitions)
    partitioner.dataset = dataset.shuffle(seed=seed)
    return partitioner.load_partition(partition)


def _dirichlet(dataset: "Dataset", config: RunConfig, partition: int, partitions: int, where: str) -> "Dataset":
    from flwr_datasets.partitioner import DirichletPartitioner

    partitioner = DirichletPartitioner(
        partitions, "label", alpha=config.dirichlet_alpha, min_partition_size=2, seed=config.seed
    )
    partitioner.dataset = dataset
    try:
        with warnings.catch_warnings(action="ignore"):
            return partitioner.load_partition(partition)
    except ValueError:
        raise DataError(
            f"{where}: dirichlet-alpha {config.dirichlet_alpha} leaves one of {partitions} nodes "
            f"fewer than 2 of its {len(dataset)} examples: raise dirichlet-alpha or run fewer nodes"
        ) from None
