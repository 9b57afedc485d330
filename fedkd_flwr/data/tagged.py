"""A node's tagged words: those of its data, or its share of them."""

from typing import TYPE_CHECKING, cast

from fedkd_flwr.config.name_lists import listed
from fedkd_flwr.config.sources import SOURCES
from fedkd_flwr.data.files import DataFile
from fedkd_flwr.data.label_names import require_different
from fedkd_flwr.data.node_data import NodeData
from fedkd_flwr.data.partition import share_rows
from fedkd_flwr.data.reading import Words, find, reader_of
from fedkd_flwr.data.sentences import Sentences, as_dataset, node_data, once, tags_of
from fedkd_flwr.data.settings import DataSettings
from fedkd_flwr.runtime.recent import Recent

if TYPE_CHECKING:
    from datasets import Dataset


def load_tagged(
    file: DataFile, settings: DataSettings, name: str, partition: int, partitions: int, recent: Recent
) -> NodeData:
    """All sentences of a file or data set, those of node `name`; or of a data set, where shared out, those of one node.

    No two nodes of one file or data set share a sentence.

    Raises:
        DataError: what is wrong with which line or row; or they are too few, or have fewer than two tags.
    """
    owned = bool(partitions) and settings.data.partition == "natural"
    key, where = ("words", file, settings, owned), str(file.path)
    found, labels = recent.get(key, lambda: _labelled(file, settings, owned))
    if partitions and SOURCES[file.kind].owners != "folder":
        shares = recent.get((*key, partitions), lambda: _shared_out(found, settings, partitions, where))
        name, found = shares[partition]
    return node_data(found, settings, name, partition, labels, where)


def load_test_tagged(source: str, settings: DataSettings, labels: tuple[str, ...]) -> "Dataset":
    """All sentences of a source; where some are held out, these."""
    file = find(source, "words")
    data = settings.data.model_copy(update={"labels": listed(labels)})
    found = cast(Words, reader_of(file, "words")).read(file, data, False)
    return as_dataset(found.test or found.train, labels)


def _labelled(file: DataFile, settings: DataSettings, owned: bool) -> tuple[Sentences, tuple[str, ...]]:
    """Each sentence once, and the tags: those that the run names, or the data declare, or that occur."""
    found = once(cast(Words, reader_of(file, "words")).read(file, settings.data, owned))
    labels = settings.data.label_names or found.declared
    if not labels:
        labels = tags_of(found)
        require_different([tag[2:] for tag in labels if tag.startswith("B-")], str(file.path))
    return found, labels


def _shared_out(found: Sentences, settings: DataSettings, partitions: int, where: str) -> list[tuple[str, Sentences]]:
    owners = [sentence.owner for sentence in found.train + found.test]
    return [
        (name, Sentences(tuple(found.train[row] for row in train), tuple(found.test[row] for row in test)))
        for name, train, test in share_rows(owners, len(found.train), settings, partitions, where)
    ]
