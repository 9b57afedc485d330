"""A node's tagged words: of iob files, or of a data set of the `datasets` library, or its share of one."""

from functools import lru_cache
from typing import TYPE_CHECKING

from fedkd_flwr.config.name_lists import listed
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.data.files import DataFile
from fedkd_flwr.data.iob import find_iob, read_iob
from fedkd_flwr.data.label_names import require_different
from fedkd_flwr.data.node_data import NodeData
from fedkd_flwr.data.partition import share_rows
from fedkd_flwr.data.saved import class_names, find_saved, is_saved
from fedkd_flwr.data.saved_words import read_saved_words
from fedkd_flwr.data.sentences import Sentences, as_dataset, node_data, once, tags_of

if TYPE_CHECKING:
    from datasets import Dataset


def find_tagged(reference: str) -> DataFile:
    """The data behind `hf:NAME`, `iob:PATH` or a path.

    Raises:
        DataError: there are none.
    """
    return find_saved(reference) if is_saved(reference) else find_iob(reference)


@lru_cache(maxsize=64)
def load_tagged(file: DataFile, config: RunConfig, name: str, partition: int, partitions: int) -> NodeData:
    """All sentences of a file or data set, those of node `name`; or of a data set, where shared out, those of one node.

    No two nodes of one file or data set share a sentence.

    Raises:
        DataError: what is wrong with which line or row; or they are too few, or have fewer than two tags.
    """
    found, labels = _labelled(file, config, bool(partitions) and config.data.partition == "natural")
    if partitions and file.kind == "hf":
        name, found = _share(found, config, partition, partitions, str(file.path))
    return node_data(found, config, name, partition, labels, str(file.path))


def load_test_tagged(source: str, config: RunConfig, labels: tuple[str, ...]) -> "Dataset":
    """All sentences of a source; where some are held out, these."""
    file = find_tagged(source)
    config = config.changed(data={"labels": listed(labels)})
    found = read_saved_words(file, config) if file.kind == "hf" else read_iob(file, labels, config.data.encoding)
    return as_dataset(found.test or found.train, labels)


@lru_cache(maxsize=4)
def _labelled(file: DataFile, config: RunConfig, owned: bool) -> tuple[Sentences, tuple[str, ...]]:
    """Each sentence once, and the tags: those that the run names, or the data declare, or that occur."""
    if file.kind == "hf":
        found, declared = once(read_saved_words(file, config, owned)), class_names(file, config.data.label_column)
    else:
        found, declared = once(read_iob(file, config.data.label_names, config.data.encoding)), ()
    labels = config.data.label_names or declared
    if not labels:
        labels = tags_of(found)
        require_different([tag[2:] for tag in labels if tag.startswith("B-")], str(file.path))
    return found, labels


def _share(found: Sentences, config: RunConfig, partition: int, partitions: int, where: str) -> tuple[str, Sentences]:
    owners = [sentence.owner for sentence in found.train + found.test]
    name, train, test = share_rows(owners, len(found.train), config, partition, partitions, where)
    return name, Sentences(tuple(found.train[row] for row in train), tuple(found.test[row] for row in test))
