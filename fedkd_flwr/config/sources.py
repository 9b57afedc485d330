"""Which kinds of data each task reads: the prefixes of `data.dataset`, `data.server-test-data` and `data-path`."""

_TEXTS = ("csv", "json", "parquet", "hf")
_OTHERS = {
    "token-classification": ("iob", "hf"),
    "image-classification": ("imagefolder",),
    "news-recommendation": ("mind",),
}

PREFIXES = tuple(dict.fromkeys((*_TEXTS, *(kind for kinds in _OTHERS.values() for kind in kinds))))
"""Of all tasks."""


def kinds_of(task: str) -> tuple[str, ...]:
    """The prefixes of the data that a task reads."""
    return _OTHERS.get(task, _TEXTS)


def sources_of(task: str) -> str:
    """How to name the data that a task reads, for messages."""
    return " or ".join(f"{kind}:PATH" for kind in kinds_of(task))
