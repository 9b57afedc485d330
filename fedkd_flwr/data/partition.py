"""How simulated nodes share one data set."""

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from numpy.typing import NDArray


def share(dataset: "Dataset", config: RunConfig, partition: int, partitions: int, where: str) -> tuple[str, "Dataset"]:
    """Name and examples of partition `partition` of `partitions`; together they are the whole data set.

    Natural partitions are those of the owners. All others are drawn with the run's seed:

    - iid: of equal size, by chance;
    - dirichlet: of each label the nodes' shares are drawn from Dirichlet(`data.dirichlet-alpha`);
    - shard: sorted by label and cut into equal blocks, of which each node has `data.shards-per-node`
      (McMahan et al. 2017).

    Args:
        dataset: columns `text`, `label` (int64, for shards also float64; none where no label decides) and, for natural
            partitions, `owner` (str).
        config: `partition`, its column, concentration or shards, and `seed`.
        partition: at least 0, below `partitions`.
        partitions: number of nodes.
        where: how errors call the data.

    Raises:
        DataError: so many nodes cannot share this data set.
    """
    if config.data.partition == "natural":
        return _natural(dataset, config.data.partition_column, partition, partitions, where)
    return f"partition-{partition}", _drawn(dataset, config, partition, partitions, where)


def share_rows(
    owners: Sequence[str], learnt: int, config: RunConfig, partition: int, partitions: int, where: str
) -> tuple[str, "NDArray[np.int64]", "NDArray[np.int64]"]:
    """`share` of examples that no label decides on, shared out together with those held out.

    Args:
        owners: of every example, first of those to learn from.
        learnt: how many these are.

    Returns:
        The partition's name, its rows to learn from, and its held-out rows counted from the first of them; ascending.
    """
    import numpy as np
    from datasets import Dataset

    everything = Dataset.from_dict({"row": range(len(owners)), "owner": owners})
    name, mine = share(everything, config, partition, partitions, where)
    rows = np.sort(np.array(mine["row"][:], np.int64))
    return name, rows[rows < learnt], rows[rows >= learnt] - learnt


def _natural(dataset: "Dataset", column: str, partition: int, partitions: int, where: str) -> tuple[str, "Dataset"]:
    owners = sorted(dataset.unique("owner"))
    if partitions > len(owners):
        raise DataError(
            f"{where}: {partitions} nodes cannot share the {len(owners)} values of column {column!r}: "
            f"run at most {len(owners)} nodes, or set data.partition to 'iid' or 'dirichlet'"
        )
    mine = dict.fromkeys(owners[partition::partitions])
    return "+".join(mine), dataset.select([i for i, owner in enumerate(dataset["owner"][:]) if owner in mine])


def _drawn(dataset: "Dataset", config: RunConfig, partition: int, partitions: int, where: str) -> "Dataset":
    from datasets import disable_progress_bars

    disable_progress_bars()
    partitioner = _partitioner(config, partitions, len(dataset))
    partitioner.dataset = dataset if config.data.partition == "dirichlet" else dataset.shuffle(seed=config.seed)
    try:
        with warnings.catch_warnings(action="ignore"):
            parts = [partitioner.load_partition(number) for number in range(partitions)]
        smallest = min(map(len, parts))
    except ValueError:
        smallest = 0
    if smallest < 2:
        scheme = config.data.partition
        alpha = scheme == "dirichlet"
        setting = f"data.dirichlet-alpha {config.data.dirichlet_alpha}" if alpha else f"data.partition {scheme!r}"
        raise DataError(
            f"{where}: {setting} leaves one of {partitions} nodes fewer than 2 of its {len(dataset)} examples: "
            f"{'raise data.dirichlet-alpha or run' if alpha else 'run'} fewer nodes"
        )
    part: Dataset = parts[partition]
    return part


def _partitioner(config: RunConfig, partitions: int, examples: int) -> Any:
    from flwr_datasets import partitioner

    match config.data.partition:
        case "dirichlet":
            return partitioner.DirichletPartitioner(
                partitions, "label", alpha=config.data.dirichlet_alpha, min_partition_size=2, seed=config.seed
            )
        case "shard":
            size = math.ceil(examples / (partitions * config.data.shards_per_node))
            return partitioner.ShardPartitioner(
                partitions, "label", shard_size=size, keep_incomplete_shard=True, seed=config.seed
            )
        case _:
            return partitioner.IidPartitioner(partitions)
