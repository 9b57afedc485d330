"""Errors that a user can act on: one line that names the culprit, what was expected and what to do.

An error has three texts. `str(error)` is for the machine where it arose and for a simulation, and holds no value of the
data. `in_full(error)` adds such values, and stays on that machine. `outside(error)` is what a node with data of its own
tells a server: no path, no column that the run did not name, nothing that a library said.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class FedKDError(Exception):
    """Base of all errors that are reported to the user as one line.

    Attributes:
        detail: what only the machine where it arose may show, such as values of the data.
        node: the name of the node at which it arose; empty: unknown, or none.
    """

    travels: ClassVar[bool] = False
    """Whether the text of every such error may be told outside."""

    kind: ClassVar[str] = "it failed"
    """What is told outside of an error whose text may not be."""

    def __init__(self, message: str, detail: str = "", outside: str = "") -> None:
        """Say what is wrong.

        Args:
            message: in one line.
            detail: see the class.
            outside: what may be told outside in place of `kind`; holds only what the server knows.
        """
        super().__init__(message)
        self.detail, self.node, self._outside = detail, "", outside

    def __str__(self) -> str:
        return self._named(super().__str__())

    @property
    def outside(self) -> str:
        """What a node with data of its own tells a server of this error."""
        return str(self) if self.travels else self._named(self._outside or self.kind)

    def _named(self, text: str) -> str:
        return f"node {self.node}: {text}" if self.node else text


class ConfigError(FedKDError):
    """A run-config or node-config key is unknown, of the wrong type or out of range."""

    kind = "a key of the run config or of its node config is not usable there"


class DataError(FedKDError):
    """A data file, column, label or split is not what the run needs."""

    kind = "its data are not as this run needs them"


class ModelError(FedKDError):
    """A checkpoint cannot be loaded, or teacher and student do not fit together."""

    kind = "a model of this run, or its own teacher, is not usable there"


class DeviceError(FedKDError):
    """The device or precision asked for is not there."""

    travels = True


class ProtocolError(FedKDError):
    """A message between server and node is not what its receiver expects."""

    travels = True


class StateError(FedKDError):
    """State on disk (node state, run folder, checkpoint) cannot be read or written."""

    kind = "its state on disk cannot be used"


class DamagedStateError(StateError):
    """State on disk can be read but is not what was written."""

    kind = "its state on disk was damaged"


class RunError(FedKDError):
    """A run cannot go on: too few nodes, too few good replies."""

    travels = True


class CodecError(FedKDError):
    """A tensor cannot be encoded, or bytes are not an intact encoded update."""

    travels = True


def in_full(error: FedKDError) -> str:
    """What an error says on the machine where it arose."""
    return f"{error} ({error.detail})" if error.detail else str(error)


@contextmanager
def at_node(name: object) -> Iterator[None]:
    """Errors inside say at which node they arose; where it has no name they stay as they are."""
    try:
        yield
    except FedKDError as error:
        error.node = error.node or str(name or "")
        raise
