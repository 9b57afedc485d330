"""Which kinds of data each task reads: the prefixes of `data.dataset`, `data.server-test-data` and `data-path`."""

from fedkd_flwr.tasks.spec import Inputs

_TEXTS = ("csv", "json", "parquet", "hf")
_OTHERS: dict[Inputs, tuple[str, ...]] = {
    "words": ("iob", "hf"),
    "images": ("imagefolder",),
    "news": ("mind",),
}

PREFIXES = tuple(dict.fromkeys((*_TEXTS, *(kind for kinds in _OTHERS.values() for kind in kinds))))
"""Of all tasks."""


def kinds_of(inputs: Inputs) -> tuple[str, ...]:
    """The prefixes of the data with this kind of examples."""
    return _OTHERS.get(inputs, _TEXTS)


def sources_of(inputs: Inputs) -> str:
    """How to name data with this kind of examples, for messages."""
    return " or ".join(f"{kind}:PATH" for kind in kinds_of(inputs))
