"""Registries: things by name, to which other packages add theirs."""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Protocol, TypeVar

Thing = TypeVar("Thing")

EXTENSIONS = "fedkd_flwr.extensions"
"""Entry point group of the modules that add to registries."""


class Registry(Mapping[str, Thing]):
    """Things by name, in the order in which they were added.

    A package that is installed beside this one names its module in `[project.entry-points."fedkd_flwr.extensions"]`.
    The module is imported once a name is asked for that is not here, so that it costs nobody else anything.
    """

    def __init__(self, kind: str, things: Mapping[str, Thing]) -> None:
        """A registry.

        Args:
            kind: what the things are, for errors.
            things: by name, those of this package.
        """
        self._kind = kind
        self._things = dict(things)

    def add(self, name: str, thing: Thing) -> None:
        """Add a thing.

        Raises:
            ValueError: the name is taken by another thing.
        """
        if self._things.setdefault(name, thing) != thing:
            raise ValueError(f"there is a {self._kind} {name!r} already: choose another name")

    def __getitem__(self, name: str) -> Thing:
        if name not in self._things:
            _import_extensions()
        return self._things[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)


class ReadsKeys(Protocol):
    """A thing that says which run-config keys it reads and others may not."""

    @property
    def keys(self) -> frozenset[str]:
        """These keys."""


def readers_of(key: str, registry: Mapping[str, ReadsKeys]) -> tuple[str, ...]:
    """Names of what reads a run-config key that not all read; empty: all do."""
    return tuple(name for name, thing in registry.items() if key in thing.keys)


def named_by(place: str) -> Any:
    """The object that "module:name" names; its module is imported now."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


@cache
def _import_extensions() -> None:
    for module in entry_points(group=EXTENSIONS):
        module.load()
