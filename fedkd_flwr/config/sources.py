"""The data sources by their prefix in `data.dataset`, `data.server-test-data` and `data-path`.

Importing this imports none of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fedkd_flwr.config.tasks import Inputs
from fedkd_flwr.runtime.registry import Registry

BUNDLED = "tweets"
"""The source without a prefix: texts that come with the demo packages."""


@dataclass(frozen=True)
class Source:
    """What a source says about itself.

    Attributes:
        readers: by the kinds of examples that it has, the module that finds and reads them (see `data.reading`).
        owners: what says whose an example is in a simulation: a column of the table, the folder, or nothing.
    """

    readers: Mapping[Inputs, str]
    owners: Literal["column", "folder", "nothing"] = "column"


SOURCES = Registry(
    "data source",
    {
        "csv": Source({"texts": "fedkd_flwr.data.files"}),
        "json": Source({"texts": "fedkd_flwr.data.files"}),
        "parquet": Source({"texts": "fedkd_flwr.data.files"}),
        "iob": Source({"words": "fedkd_flwr.data.iob"}, owners="folder"),
        "hf": Source({"texts": "fedkd_flwr.data.saved", "words": "fedkd_flwr.data.saved_words"}),
        "imagefolder": Source({"images": "fedkd_flwr.data.image_folders"}, owners="nothing"),
        "mind": Source({"news": "fedkd_flwr.data.mind"}),
        BUNDLED: Source({"texts": "fedkd_flwr.data.tweets"}),
    },
)
"""By prefix. A path without one is read by the first that has such examples."""


def source_of(reference: str) -> Source | None:
    """The source that a reference names; None: it is a path, or nothing that is known."""
    prefix, colon, _ = reference.partition(":")
    return SOURCES.get(prefix) if colon or reference == BUNDLED else None


def named_for(inputs: Inputs) -> str:
    """How to name data with this kind of examples, for messages."""
    prefixes = (prefix for prefix, source in SOURCES.items() if inputs in source.readers and prefix != BUNDLED)
    return " or ".join(f"{prefix}:PATH" for prefix in prefixes)
