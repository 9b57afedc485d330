"""Errors that a user can act on: one line that names the culprit, what was expected and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager


class FedKDError(Exception):
    """Base of all errors that are reported to the user as one line."""


class ConfigError(FedKDError):
    """A run-config or node-config key is unknown, of the wrong type or out of range."""


class DataError(FedKDError):
    """A data file, column, label or split is not what the run needs.

    The message may travel to the server and holds no value of the data. `detail`, which may, stays on this machine.
    """

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class ModelError(FedKDError):
    """A checkpoint cannot be loaded, or teacher and student do not fit together."""


class DeviceError(FedKDError):
    """The device or precision asked for is not there."""


class ProtocolError(FedKDError):
    """A message between server and node is not what its receiver expects."""


class StateError(FedKDError):
    """State on disk (node state, run folder, checkpoint) cannot be read or written."""


class DamagedStateError(StateError):
    """State on disk can be read but is not what was written."""


class RunError(FedKDError):
    """A run cannot go on: too few nodes, too few good replies."""


class CodecError(FedKDError):
    """A tensor cannot be encoded, or bytes are not an intact encoded update."""


def in_full(error: FedKDError) -> str:
    """What an error says on the machine where it arose."""
    return f"{error} ({error.detail})" if isinstance(error, DataError) and error.detail else str(error)


@contextmanager
def at_node(name: object) -> Iterator[None]:
    """Errors inside say at which node they arose; where it has no name they stay as they are."""
    try:
        yield
    except FedKDError as error:
        if not name:
            raise
        named = type(error)(f"node {name}: {error}")
        if isinstance(named, DataError) and isinstance(error, DataError):
            named.detail = error.detail
        raise named from None
