"""The data sources by their prefix in `data.dataset`, `data.server-test-data` and `data-path`.

Importing this imports none of them.
"""

from collections.abc import Collection
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal, Protocol, cast

from fedkd_flwr.runtime.registry import Registry
from fedkd_flwr.tasks.spec import Inputs

if TYPE_CHECKING:
    from fedkd_flwr.config.groups import DataConfig
    from fedkd_flwr.data.files import DataFile
    from fedkd_flwr.data.rows import Rows

BUNDLED = "tweets"
"""The source without a prefix: texts that come with the demo packages."""


class Tables(Protocol):
    """The module of a source of tables."""

    def find(self, reference: str) -> "DataFile":
        """The data behind `PREFIX:REST`, as they are now.

        Raises:
            DataError: there are none.
        """

    def read(self, file: "DataFile", columns: Collection[str], data: "DataConfig") -> "dict[str, Rows]":
        """All rows, by the name of their split; of several the first is learnt from. "": there are no splits.

        Args:
            file: what `find` found.
            columns: those that are wanted; others may be left out.
            data: how files are written.

        Raises:
            DataError: the data are not what they should be; says where.
        """


@dataclass(frozen=True)
class Source:
    """What a source says about itself.

    Attributes:
        inputs: kinds of examples that it has.
        tables: module of `Tables`, of a source that has texts; "": it has none.
        owners: what says whose an example is in a simulation: a column of the table, the folder, or nothing.
    """

    inputs: frozenset[Inputs]
    tables: str = ""
    owners: Literal["column", "folder", "nothing"] = "column"


_TEXTS: frozenset[Inputs] = frozenset({"texts"})

SOURCES = Registry(
    "data source",
    {
        "csv": Source(_TEXTS, "fedkd_flwr.data.files"),
        "json": Source(_TEXTS, "fedkd_flwr.data.files"),
        "parquet": Source(_TEXTS, "fedkd_flwr.data.files"),
        "iob": Source(frozenset({"words"}), owners="folder"),
        "hf": Source(frozenset({"texts", "words"}), "fedkd_flwr.data.saved"),
        "imagefolder": Source(frozenset({"images"}), owners="nothing"),
        "mind": Source(frozenset({"news"})),
        BUNDLED: Source(_TEXTS, "fedkd_flwr.data.tweets"),
    },
)
"""By prefix."""


def source_of(reference: str) -> Source | None:
    """The source that a reference names; None: it is a path, or nothing that is known."""
    prefix, colon, _ = reference.partition(":")
    return SOURCES.get(prefix) if colon or reference == BUNDLED else None


def tables_of(kind: str) -> Tables:
    """The module that reads tables of this kind."""
    return cast(Tables, import_module(SOURCES[kind].tables))


def named_for(inputs: Inputs) -> str:
    """How to name data with this kind of examples, for messages."""
    prefixes = (prefix for prefix, source in SOURCES.items() if inputs in source.inputs and prefix != BUNDLED)
    return " or ".join(f"{prefix}:PATH" for prefix in prefixes)
