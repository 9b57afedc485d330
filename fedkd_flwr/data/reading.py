"""What the module of a data source has, by the kind of its examples, and how a reference leads to it."""

from collections.abc import Collection
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from fedkd_flwr.config.groups import DataConfig
from fedkd_flwr.config.sources import SOURCES, source_of
from fedkd_flwr.config.tasks import Inputs
from fedkd_flwr.data.files import DataFile
from fedkd_flwr.data.rows import Rows
from fedkd_flwr.data.sentences import Sentences

if TYPE_CHECKING:
    from datasets import Dataset

    from fedkd_flwr.data.impressions import Impressions


class Finds(Protocol):
    """The module of a source, whatever examples it has."""

    def find(self, reference: str) -> DataFile:
        """The data behind `PREFIX:REST` or a path, as they are now.

        Raises:
            DataError: there are none.
        """


class Tables(Finds, Protocol):
    """The module of a source of texts: tables."""

    def read(self, file: DataFile, columns: Collection[str], data: DataConfig) -> dict[str, Rows]:
        """All rows, by the name of their split; of several the first is learnt from. "": there are no splits.

        Args:
            file: what `find` found.
            columns: those that are wanted; others may be left out.
            data: how files are written.

        Raises:
            DataError: the data are not what they should be; says where.
        """


class Words(Finds, Protocol):
    """The module of a source of tagged words."""

    def read(self, file: DataFile, data: DataConfig, owned: bool) -> Sentences:
        """All sentences; where `owned` with the partition column as their owners. Raises as `Tables.read`."""


class Images(Finds, Protocol):
    """The module of a source of images."""

    def read(self, file: DataFile) -> "Dataset":
        """All images: columns `image` (path), `label` (str), `test` (bool: held out), `row` (from 1)."""


class News(Finds, Protocol):
    """The module of a source of news."""

    def read(self, file: DataFile) -> "Impressions":
        """All impressions in which some news was clicked and some was not. Raises as `Tables.read`."""


def find(reference: str, inputs: Inputs) -> DataFile:
    """The data with such examples behind `PREFIX:REST`, the name of the bundled tweets, or a path, as they are now.

    Raises:
        DataError: there are none.
    """
    from fedkd_flwr.data.saved import is_saved

    source = source_of(reference)
    if source is None or inputs not in source.readers:
        able = [prefix for prefix, one in SOURCES.items() if inputs in one.readers]
        source = SOURCES["hf" if "hf" in able and is_saved(reference) else able[0]]
    found: DataFile = import_module(source.readers[inputs]).find(reference)
    return found


def reader_of(file: DataFile, inputs: Inputs) -> Any:
    """The module that reads such examples of found data: `Tables`, `Words`, `Images` or `News`."""
    return import_module(SOURCES[file.kind].readers[inputs])
