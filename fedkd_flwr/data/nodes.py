"""A node's own examples: its file or its share of one data set, split into train and held out."""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from fedkd_flwr.config import RunConfig, Value
from fedkd_flwr.data.examples import (
    HELD_OUT,
    distinct_labels,
    find,
    load_examples,
    locate,
    name_of,
    read_examples,
    with_labels,
)
from fedkd_flwr.data.files import DataFile, stamp
from fedkd_flwr.data.images import find_images, read_images, split_images
from fedkd_flwr.data.iob import Sentence, Sentences, as_dataset, find_iob, folder_of, read_iob, tags_of
from fedkd_flwr.data.label_columns import strata
from fedkd_flwr.data.mind import LABELS as CLICKS
from fedkd_flwr.data.mind import as_dataset as impressions_as_dataset
from fedkd_flwr.data.mind import find_mind, of_node, read_mind
from fedkd_flwr.data.partition import share
from fedkd_flwr.data.saved import class_names
from fedkd_flwr.data.split import held_out, thinned
from fedkd_flwr.data.tweets import tweets_file
from fedkd_flwr.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

_log = logging.getLogger(__name__)

_FORMAT = 1
"""To be raised when the same file and config give other examples than before."""

_KEYS = {
    "task", "text_column", "label_column", "label_separator", "labels", "partition", "partition_column",
    "dirichlet_alpha", "test_fraction", "max_test_examples", "seed",
}  # fmt: skip
"""Besides `dataset`, all that decides on a node's examples."""


_FIND: Mapping[str, Callable[[str], DataFile]] = {
    "token-classification": find_iob,
    "image-classification": find_images,
    "news-recommendation": find_mind,
}
_OTHERS = {"image-classification": ("images", "imagefolder:PATH"), "news-recommendation": ("clicks", "mind:FOLDER")}


@dataclass(frozen=True)
class NodeData:
    """Examples of one node: no text, sentence or impression of `test` is in `train`, and no file of an image.

    Attributes:
        name: whose they are.
        train: columns `text` (str) and `label` (int64 index into `labels`), in the order of the data; of texts with
            several labels `label` is a list of int64, for regression float64; of tagged words `words` (list of str)
            and `label` (list of int64); of images `image` (path) and `label`; of impressions those of
            `fedkd_flwr.data.mind.as_dataset`.
        test: held out, the same columns.
        labels: the names of all classes, also of those that this node has no example of; of numbers the lowest and
            the highest.
    """

    name: str
    train: "Dataset"
    test: "Dataset"
    labels: tuple[str, ...]


@dataclass(frozen=True)
class _Owned:
    """What is a node's: partition `partition` of `partitions` (0: all) of a file (None: of the bundled tweets)."""

    file: DataFile | None
    partition: int = 0
    partitions: int = 0


def load_node_data(config: RunConfig, node_config: Mapping[str, Value]) -> NodeData:
    """The data of the node that Flower describes by `node_config`, read once per process.

    With `data-path` (a path that ends in .csv, .tsv, .json, .jsonl or .parquet, or csv:PATH, json:PATH, parquet:PATH,
    hf:NAME) that file or data set is the node's own, all of it; `name`, or else the file's name, is its name.
    Otherwise the node with `partition-id` i of `num-partitions` n holds its share of the run's data set:

    - natural: all rows of the owners i, i + n, i + 2n, ... in the sorted values of the partition column;
    - iid, dirichlet: a share drawn with the run's seed.

    For token classification `data-path` is a folder or file as in `fedkd_flwr.data.iob`, and the run's data set a
    folder of such folders, one for each node. For image classification and news recommendation both are folders as in
    `fedkd_flwr.data.images` and `fedkd_flwr.data.mind`; a node's share of news is that of its users, or drawn.

    Rows that repeat an earlier text (up to case and white space) are left out of the whole data set, so that
    no held-out text of a node is among the training texts of any.

    Raises:
        DataError: what is wrong with which file, column and row, or with the number of nodes.
    """
    owned = _owned(config, node_config)
    if not owned.partitions:
        assert owned.file is not None
        own = {"iob": _tagged, "imagefolder": _pictured, "mind": _impressions}.get(owned.file.kind, _own)
        return own(owned.file, config, str(node_config.get("name") or owned.file.name))
    if owned.file is not None and owned.file.kind == "imagefolder":
        return _pictured(owned.file, config, "", owned.partition, owned.partitions)
    if owned.file is not None and owned.file.kind == "mind":
        return _impressions(owned.file, config, f"partition-{owned.partition}", owned.partition, owned.partitions)
    return _share(owned.file, config, owned.partition, owned.partitions)


def load_test_data(source: str, config: RunConfig, labels: tuple[str, ...]) -> "Dataset":
    """All examples of a source, labelled; of `iob:`, `imagefolder:`, `hf:` and `mind:` those held out, if any are.

    Raises:
        DataError: what is wrong with which file, column and row.
    """
    if source.startswith("iob:"):
        found = read_iob(find_iob(source), labels)
        return as_dataset(found.test or found.train, labels)
    if source.startswith("mind:"):
        mind = read_mind(find_mind(source))
        return impressions_as_dataset(mind.train if mind.test is None else mind.test, mind.titles)
    if source.startswith("imagefolder:"):
        images = with_labels(read_images(find_images(source)), labels, source)
        held = [row for row, test in enumerate(images["test"]) if test]
        return images.select(held) if held else images
    found = with_labels(load_examples(source, config), labels, source)
    if HELD_OUT in found.column_names:
        found = found.select([row for row, held in enumerate(found[HELD_OUT][:]) if held]).remove_columns(HELD_OUT)
    return found


def data_fingerprint(config: RunConfig, node_config: Mapping[str, Value]) -> str:
    """SHA-256 of all that decides on what `load_node_data` returns; the data are not read.

    Raises:
        DataError: as `load_node_data`, where that needs no look into the file.
    """
    owned = _owned(config, node_config)
    file = owned.file or DataFile("tweets", tweets_file(), stamp(tweets_file()))
    keys = config.model_dump(mode="json", include=_KEYS)
    place = [file.kind, str(file.path), file.stamp, owned.partition, owned.partitions, node_config.get("name")]
    return hashlib.sha256(json.dumps([_FORMAT, place, keys], sort_keys=True).encode()).hexdigest()


def node_name(config: RunConfig, node_config: Mapping[str, Value]) -> str:
    """Under which a node keeps its state: `name`, else its partition, else its file's name.

    Raises:
        DataError: as `load_node_data`, where that needs no look into the file.
    """
    owned = _owned(config, node_config)
    if name := node_config.get("name"):
        return str(name)
    if "partition-id" in node_config:
        return f"partition-{node_config['partition-id']}"
    assert owned.file is not None
    return re.sub(r"[^A-Za-z0-9._-]+", "-", owned.file.name)


def label_names(config: RunConfig) -> tuple[str, ...]:
    """The classes of a run: those of run-config key `labels`, else those of its data set, sorted.

    Raises:
        DataError: fewer than two, or the data set cannot be read.
    """
    named = config.label_names
    return _checked(named, "run-config key 'labels'") if named else _labelled(locate(config.dataset), config)[1]


def _owned(config: RunConfig, node_config: Mapping[str, Value]) -> _Owned:
    tokens = config.task == "token-classification"
    if own := str(node_config.get("data-path", "")):
        if own.startswith("iob:") and not tokens:
            raise DataError(f"node-config: data-path {own!r} holds tags, which task {config.task!r} does not read")
        return _Owned(_FIND.get(config.task, find)(own))
    try:
        partition, partitions = int(node_config["partition-id"]), int(node_config["num-partitions"])
    except KeyError:
        raise DataError(
            "node-config has neither data-path nor partition-id and num-partitions: "
            "start the node with --node-config \"data-path='FILE'\""
        ) from None
    if not 0 <= partition < partitions:
        raise DataError(f"node-config: partition-id {partition} is not in 0 ... {partitions - 1}")
    if tokens:
        if config.dataset == "tweets":
            raise DataError("dataset 'tweets' has no tags: set run-config key 'dataset' to iob:PATH")
        return _Owned(find_iob(str(folder_of(config.dataset, partition, partitions))))
    if config.task in _OTHERS:
        if config.dataset == "tweets":
            what, source = _OTHERS[config.task]
            raise DataError(f"dataset 'tweets' has no {what}: set run-config key 'dataset' to {source}")
        return _Owned(_FIND[config.task](config.dataset), partition, partitions)
    return _Owned(locate(config.dataset), partition, partitions)


@lru_cache(maxsize=64)
def _own(file: DataFile, config: RunConfig, name: str) -> NodeData:
    dataset, labels = _labelled(file, config)
    return _split(name, dataset, labels, config, 0, name_of(file))


@lru_cache(maxsize=64)
def _tagged(file: DataFile, config: RunConfig, name: str) -> NodeData:
    import numpy as np

    where = name_of(file)
    found = _once(read_iob(file, config.label_names))
    labels = _checked(config.label_names or tags_of(found), where)
    train, test, limit = found.train, found.test, config.max_test_examples
    rng = np.random.default_rng((config.seed, 0))
    _require(len(train) + bool(test), name, where)
    if test:
        test = tuple(test[row] for row in sorted(rng.permutation(len(test))[: limit or None]))
    else:
        spans = np.array([int(set(sentence.tags) != {"O"}) for sentence in train])
        rows = held_out(spans, config.test_fraction, limit, rng)
        train, test = (tuple(train[row] for row in part) for part in rows)
    return NodeData(name, as_dataset(train, labels), as_dataset(test, labels), labels)


@lru_cache(maxsize=64)
def _pictured(file: DataFile, config: RunConfig, name: str, partition: int = 0, partitions: int = 0) -> NodeData:
    import numpy as np

    where, images = name_of(file), read_images(file)
    labels = _checked(config.label_names or distinct_labels(images), where)
    images, parted = with_labels(images, labels, where), any(images["test"])
    if partitions:
        name, images = share(images.shuffle(seed=config.seed), config, partition, partitions, where)
    _require(len(images), name, where)
    train, test = split_images(images, parted, config, np.random.default_rng((config.seed, partition)))
    if not (len(train) and len(test)):
        raise DataError(
            f"{where}: node {name!r} has {len(train)} images to train on and {len(test)} to test on, expected at least "
            "one of each: add some, or run fewer nodes"
        )
    return NodeData(name, train, test, labels)


@lru_cache(maxsize=64)
def _impressions(file: DataFile, config: RunConfig, name: str, partition: int = 0, partitions: int = 0) -> NodeData:
    mind = read_mind(file)
    parts = of_node(mind, config, partition, partitions, str(file.path))
    train, test = (impressions_as_dataset(part, mind.titles) for part in parts)
    return NodeData(name, train, test, CLICKS)


def _once(found: Sentences) -> Sentences:
    """Each sentence (up to case) once, preferably to test on."""
    first: dict[tuple[str, ...], Sentence] = {}
    for sentence in (*found.test, *found.train):
        first.setdefault(tuple(word.casefold() for word in sentence.words), sentence)
    kept = {id(sentence) for sentence in first.values()}
    train, test = (tuple(s for s in part if id(s) in kept) for part in (found.train, found.test))
    return Sentences(train, test)


@lru_cache(maxsize=64)
def _share(file: DataFile | None, config: RunConfig, partition: int, partitions: int) -> NodeData:
    dataset, labels = _labelled(file, config, config.partition == "natural")
    name, mine = share(dataset, config, partition, partitions, name_of(file))
    return _split(name, mine, labels, config, partition, name_of(file))


@lru_cache(maxsize=4)
def _labelled(file: DataFile | None, config: RunConfig, owned: bool = False) -> tuple["Dataset", tuple[str, ...]]:
    dataset, where = read_examples(file, config, owned), name_of(file)
    declared = class_names(file, config.label_column) if file is not None and file.kind == "hf" else ()
    labels = _checked(config.label_names or declared or distinct_labels(dataset), where)
    return _without_repeats(with_labels(dataset, labels, where), where), labels


def _checked(labels: tuple[str, ...], where: str) -> tuple[str, ...]:
    if len(set(labels)) < max(2, len(labels)):
        raise DataError(f"{where}: expected at least two different labels, found {', '.join(labels)}")
    return labels


def _without_repeats(dataset: "Dataset", where: str) -> "Dataset":
    """Each text once: the first, or the first held out where the data say what is."""
    texts = [" ".join(text.casefold().split()) for text in dataset["text"][:]]
    held = dataset[HELD_OUT][:] if HELD_OUT in dataset.column_names else [False] * len(texts)
    first: dict[str, int] = {}
    for row in sorted(range(len(texts)), key=lambda row: not held[row]):
        first.setdefault(texts[row], row)
    if len(first) == len(texts):
        return dataset
    _log.info(
        "%s: %d of %d rows repeat an earlier text and are left out",
        where,
        len(texts) - len(first),
        len(texts),
    )
    return dataset.select(sorted(first.values()))


def _split(
    name: str, dataset: "Dataset", labels: tuple[str, ...], config: RunConfig, partition: int, where: str
) -> NodeData:
    import numpy as np

    _require(len(dataset), name, where)
    rng = np.random.default_rng((config.seed, partition))
    classes, limit = strata(dataset), config.max_test_examples
    held = np.array(dataset[HELD_OUT][:] if HELD_OUT in dataset.column_names else [])
    if held.any() and not held.all():
        rows = np.flatnonzero(~held), thinned(classes, np.flatnonzero(held), limit, rng)
    else:
        rows = held_out(classes, config.test_fraction, limit, rng)
    train, test = (dataset.select(part).select_columns(["text", "label"]) for part in rows)
    return NodeData(name, train, test, labels)


def _require(examples: int, name: str, where: str) -> None:
    if examples < 2:
        raise DataError(
            f"{where}: node {name!r} has {examples} different examples, expected at least 2: "
            "one to train on and one to test on"
        )
