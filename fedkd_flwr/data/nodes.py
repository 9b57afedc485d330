"""A node's own examples: what kind of data its task reads, and which of them are the node's."""

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fedkd_flwr.config.groups import Value
from fedkd_flwr.config.sources import BUNDLED, named_for, source_of
from fedkd_flwr.config.tasks import Inputs
from fedkd_flwr.data.files import DataFile
from fedkd_flwr.data.images import load_images, load_test_images
from fedkd_flwr.data.iob import folder_of
from fedkd_flwr.data.news import load_news, load_test_news
from fedkd_flwr.data.node_data import NodeData
from fedkd_flwr.data.reading import find
from fedkd_flwr.data.saved import folder_of_node
from fedkd_flwr.data.settings import DataSettings
from fedkd_flwr.data.tagged import load_tagged, load_test_tagged
from fedkd_flwr.data.texts import load_test_texts, load_texts
from fedkd_flwr.errors import DataError
from fedkd_flwr.runtime.recent import Recent

if TYPE_CHECKING:
    from datasets import Dataset

_FORMAT = 4
"""To be raised when the same file and config give other examples than before."""


@dataclass(frozen=True)
class _Kind:
    """How examples of one kind are shared out and split, whatever source they come from.

    Attributes:
        load: the examples of a node, from data, settings, name of the node, partition, partitions (0: all), and what
            the process has read last.
        load_test: those to test a student on, from source, settings and labels.
        holds: what makes them this kind, in words.
    """

    load: Callable[[DataFile, DataSettings, str, int, int, Recent], NodeData]
    load_test: Callable[[str, DataSettings, tuple[str, ...]], "Dataset"]
    holds: str


_KINDS: dict[Inputs, _Kind] = {
    "texts": _Kind(load_texts, load_test_texts, "rows of text"),
    "words": _Kind(load_tagged, load_test_tagged, "tags"),
    "images": _Kind(load_images, load_test_images, "images"),
    "news": _Kind(load_news, load_test_news, "clicks"),
}
"""By the kind of examples that a task has."""


@dataclass(frozen=True)
class _Owned:
    """What is a node's: partition `partition` of `partitions` (0: all) of a file."""

    file: DataFile
    partition: int = 0
    partitions: int = 0


def load_node_data(settings: DataSettings, node_config: Mapping[str, Value], recent: Recent | None = None) -> NodeData:
    """The data of the node that Flower describes by `node_config`.

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

    Args:
        settings: of the run, as they are at this node.
        node_config: of the node.
        recent: what the process has read, and how it is shared out, for other nodes; None: the data are read anew.

    Raises:
        DataError: what is wrong with which file, column and row, or with the number of nodes.
    """
    owned = _owned(settings, node_config)
    name = "" if owned.partitions else str(node_config.get("name") or owned.file.name)
    drawing = _drawing(settings, node_config)
    return _kind(settings).load(owned.file, drawing, name, owned.partition, owned.partitions, recent or Recent())


def load_test_data(source: str, settings: DataSettings, labels: tuple[str, ...]) -> "Dataset":
    """All examples of a source, labelled; of `iob:`, `imagefolder:`, `hf:` and `mind:` those held out, if any are.

    Raises:
        DataError: what is wrong with which file, column and row.
    """
    return _kind(settings).load_test(source, settings, labels)


def data_fingerprint(settings: DataSettings, node_config: Mapping[str, Value]) -> str:
    """SHA-256 of all that decides on what `load_node_data` returns; the data are not read.

    Raises:
        DataError: as `load_node_data`, where that needs no look into the file.
    """
    owned, drawing = _owned(settings, node_config), _drawing(settings, node_config)
    keys = {
        "task": drawing.task,
        "seed": drawing.seed,
        **drawing.data.model_dump(exclude={"dataset", "server_test_data"}),
    }
    file, name = owned.file, node_config.get("name")
    place = [file.kind, str(file.path), file.stamp, owned.partition, owned.partitions, name]
    return hashlib.sha256(json.dumps([_FORMAT, place, keys], sort_keys=True).encode()).hexdigest()


def node_name(settings: DataSettings, node_config: Mapping[str, Value]) -> str:
    """Under which a node keeps its state: `name`, else its partition, else what stands for the path of its data.

    Raises:
        DataError: as `load_node_data`, where that needs no look into the file.
    """
    owned = _owned(settings, node_config)
    if name := node_config.get("name"):
        return str(name)
    if "partition-id" in node_config:
        return f"partition-{node_config['partition-id']}"
    return f"node-{hashlib.sha256(str(owned.file.path).encode()).hexdigest()[:12]}"


def _kind(settings: DataSettings) -> _Kind:
    return _KINDS[settings.spec.inputs]


def _drawing(settings: DataSettings, node_config: Mapping[str, Value]) -> DataSettings:
    """The settings, with the seed by which rows are drawn: where data are a node's own, it follows from their number.

    Runs that hold out as many there hold out the same rows, whatever their seed: none trains on what another was tested
    on. Runs that hold out another number draw anew: their scores do not differ by one row's.
    """
    if "data-path" not in node_config:
        return settings
    held_out = f"{settings.data.test_fraction} {settings.data.max_test_examples}"
    return replace(settings, seed=zlib.crc32(held_out.encode()))


def _owned(settings: DataSettings, node_config: Mapping[str, Value]) -> _Owned:
    inputs, dataset = settings.spec.inputs, settings.data.dataset
    if own := str(node_config.get("data-path", "")):
        source = source_of(own)
        if source is not None and inputs not in source.readers:
            held = " or ".join(_KINDS[kind].holds for kind in sorted(source.readers))
            raise DataError(f"node-config: data-path {own!r} holds {held}, which task {settings.task!r} does not read")
        return _Owned(find(own, inputs))
    try:
        partition, partitions = int(node_config["partition-id"]), int(node_config["num-partitions"])
    except KeyError:
        raise DataError(
            "node-config has neither data-path nor partition-id and num-partitions: "
            "start the node with --node-config \"data-path='FILE'\""
        ) from None
    if not 0 <= partition < partitions:
        raise DataError(f"node-config: partition-id {partition} is not in 0 ... {partitions - 1}")
    source = source_of(dataset)
    if dataset == BUNDLED and source is not None and inputs not in source.readers:
        raise DataError(
            f"data.dataset 'tweets' has no {_kind(settings).holds}: set run-config key 'data.dataset' to "
            f"{named_for(inputs)}"
        )
    if saved := folder_of_node(dataset, partition, partitions):
        return _Owned(find(f"hf:{saved}", inputs))
    if source is not None and source.owners == "folder":
        return _Owned(find(str(folder_of(dataset, partition, partitions)), inputs))
    return _Owned(find(dataset, inputs), partition, partitions)
