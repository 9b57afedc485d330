"""A node's own examples: what kind of data its task reads, and which of them are the node's."""

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedkd_flwr.config.groups import Value
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.data.examples import find
from fedkd_flwr.data.files import DataFile
from fedkd_flwr.data.images import find_images, load_images, load_test_images
from fedkd_flwr.data.iob import folder_of
from fedkd_flwr.data.mind import find_mind, load_mind, load_test_mind
from fedkd_flwr.data.node_data import NodeData
from fedkd_flwr.data.saved import folder_of_node
from fedkd_flwr.data.sources import BUNDLED, named_for, source_of
from fedkd_flwr.data.tagged import find_tagged, load_tagged, load_test_tagged
from fedkd_flwr.data.texts import load_test_texts, load_texts
from fedkd_flwr.errors import DataError
from fedkd_flwr.tasks.spec import Inputs

if TYPE_CHECKING:
    from datasets import Dataset

_FORMAT = 4
"""To be raised when the same file and config give other examples than before."""

_KEYS = {
    "task", "data.text-column", "data.text-pair-column", "data.label-column", "data.label-separator", "data.labels",
    "data.skip-unlabelled", "data.separator", "data.encoding", "data.partition", "data.partition-column",
    "data.dirichlet-alpha", "data.shards-per-node", "data.test-fraction", "data.max-test-examples", "seed",
}  # fmt: skip
"""Besides `data.dataset`, all that decides on a node's examples."""


@dataclass(frozen=True)
class _Kind:
    """Data with one kind of examples, whatever source they come from.

    Attributes:
        find: the data behind a reference, as they are now.
        load: the examples of a node, from data, run config, name of the node, partition and partitions (0: all).
        load_test: those to test a student on, from source, run config and labels.
        holds: what makes them this kind, in words.
    """

    find: Callable[[str], DataFile]
    load: Callable[[DataFile, RunConfig, str, int, int], NodeData]
    load_test: Callable[[str, RunConfig, tuple[str, ...]], "Dataset"]
    holds: str


_KINDS: dict[Inputs, _Kind] = {
    "texts": _Kind(find, load_texts, load_test_texts, "rows of text"),
    "words": _Kind(find_tagged, load_tagged, load_test_tagged, "tags"),
    "images": _Kind(find_images, load_images, load_test_images, "images"),
    "news": _Kind(find_mind, load_mind, load_test_mind, "clicks"),
}
"""By the kind of examples that a task has."""


@dataclass(frozen=True)
class _Owned:
    """What is a node's: partition `partition` of `partitions` (0: all) of a file."""

    file: DataFile
    partition: int = 0
    partitions: int = 0


def load_node_data(config: RunConfig, node_config: Mapping[str, Value]) -> NodeData:
    """The data of the node that Flower describes by `node_config`, read once per process.

    With `data-path` (a path that ends in .csv, .tsv, .json, .jsonl or .parquet, or csv:PATH, json:PATH, parquet:PATH,
    hf:NAME) that file or data set is the node's own, all of it; `name`, or else the file's name, is its name.
    Otherwise the node with `partition-id` i of `num-partitions` n holds its share of the run's data set:

    - natural: all rows of the owners i, i + n, i + 2n, ... in the sorted values of the partition column;
    - any other partition: a share drawn with the run's seed, see `fedkd_flwr.data.partition`.

    For token classification `data-path` is a folder or file as in `fedkd_flwr.data.iob` or a data set, and the run's
    data set a folder of such folders, one for each node, or a data set to be shared out. For image classification and
    news recommendation both are folders as in `fedkd_flwr.data.images` and `fedkd_flwr.data.mind`; a node's share of
    news is that of its users, or drawn.

    Where the run's data set is `hf:PATH` of a folder with a data set for each node, the node has its own of them.

    Rows that repeat an earlier text (up to case and white space) are left out of the whole data set, so that
    no held-out text of a node is among the training texts of any.

    Raises:
        DataError: what is wrong with which file, column and row, or with the number of nodes.
    """
    owned = _owned(config, node_config)
    name = "" if owned.partitions else str(node_config.get("name") or owned.file.name)
    return _kind(config).load(owned.file, _drawing(config, node_config), name, owned.partition, owned.partitions)


def load_test_data(source: str, config: RunConfig, labels: tuple[str, ...]) -> "Dataset":
    """All examples of a source, labelled; of `iob:`, `imagefolder:`, `hf:` and `mind:` those held out, if any are.

    Raises:
        DataError: what is wrong with which file, column and row.
    """
    return _kind(config).load_test(source, config, labels)


def data_fingerprint(config: RunConfig, node_config: Mapping[str, Value]) -> str:
    """SHA-256 of all that decides on what `load_node_data` returns; the data are not read.

    Raises:
        DataError: as `load_node_data`, where that needs no look into the file.
    """
    owned = _owned(config, node_config)
    keys = {key: value for key, value in _drawing(config, node_config).as_run_config().items() if key in _KEYS}
    file, name = owned.file, node_config.get("name")
    place = [file.kind, str(file.path), file.stamp, owned.partition, owned.partitions, name]
    return hashlib.sha256(json.dumps([_FORMAT, place, keys], sort_keys=True).encode()).hexdigest()


def node_name(config: RunConfig, node_config: Mapping[str, Value]) -> str:
    """Under which a node keeps its state: `name`, else its partition, else what stands for the path of its data.

    Raises:
        DataError: as `load_node_data`, where that needs no look into the file.
    """
    owned = _owned(config, node_config)
    if name := node_config.get("name"):
        return str(name)
    if "partition-id" in node_config:
        return f"partition-{node_config['partition-id']}"
    return f"node-{hashlib.sha256(str(owned.file.path).encode()).hexdigest()[:12]}"


def _kind(config: RunConfig) -> _Kind:
    return _KINDS[config.task_spec.inputs]


def _drawing(config: RunConfig, node_config: Mapping[str, Value]) -> RunConfig:
    """The run, with the seed by which rows are drawn: where data are a node's own, it follows from their number.

    Runs that hold out as many there hold out the same rows, whatever their seed: none trains on what another was tested
    on. Runs that hold out another number draw anew: their scores do not differ by one row's.
    """
    if "data-path" not in node_config:
        return config
    settings = f"{config.data.test_fraction} {config.data.max_test_examples}"
    return config.model_copy(update={"seed": zlib.crc32(settings.encode())})


def _owned(config: RunConfig, node_config: Mapping[str, Value]) -> _Owned:
    kind = _kind(config)
    if own := str(node_config.get("data-path", "")):
        source = source_of(own)
        if source is not None and config.task_spec.inputs not in source.inputs:
            held = " or ".join(_KINDS[inputs].holds for inputs in sorted(source.inputs))
            raise DataError(f"node-config: data-path {own!r} holds {held}, which task {config.task!r} does not read")
        return _Owned(kind.find(own))
    try:
        partition, partitions = int(node_config["partition-id"]), int(node_config["num-partitions"])
    except KeyError:
        raise DataError(
            "node-config has neither data-path nor partition-id and num-partitions: "
            "start the node with --node-config \"data-path='FILE'\""
        ) from None
    if not 0 <= partition < partitions:
        raise DataError(f"node-config: partition-id {partition} is not in 0 ... {partitions - 1}")
    source = source_of(config.data.dataset)
    if config.data.dataset == BUNDLED and source is not None and config.task_spec.inputs not in source.inputs:
        raise DataError(
            f"data.dataset 'tweets' has no {kind.holds}: set run-config key 'data.dataset' to "
            f"{named_for(config.task_spec.inputs)}"
        )
    if saved := folder_of_node(config.data.dataset, partition, partitions):
        return _Owned(kind.find(f"hf:{saved}"))
    if source is not None and source.owners == "folder":
        return _Owned(kind.find(str(folder_of(config.data.dataset, partition, partitions))))
    return _Owned(kind.find(config.data.dataset), partition, partitions)
