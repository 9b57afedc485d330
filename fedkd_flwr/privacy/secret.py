"""A secret of a node's owner: of it follows what neither a server nor a run-config may know.

STATE_DIR/secret holds 32 random bytes, made once, readable by its owner alone. Nothing sends or removes it.
"""

import hmac
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedkd_flwr.config.node_config import is_owned
from fedkd_flwr.errors import StateError
from fedkd_flwr.runtime.disk import flush, locked

_BYTES = 32


@dataclass(frozen=True)
class Secret:
    """What only a node's owner knows; empty where there is none.

    Attributes:
        key: the bytes.
    """

    key: bytes = field(default=b"", repr=False)

    def words(self, purpose: str) -> tuple[int, ...]:
        """Eight numbers of 32 bits for a purpose, to be mixed into the seed of it; none of an empty secret."""
        if not self.key:
            return ()
        return tuple(np.frombuffer(hmac.digest(self.key, purpose.encode(), "sha256"), "<u4").tolist())

    def seed(self, purpose: str) -> int | None:
        """A number of 32 bits for a purpose, in place of a seed; None of an empty secret."""
        return self.words(purpose)[0] if self.key else None


def secret_of(state_dir: Path, node_config: Mapping[str, Any]) -> Secret:
    """The secret of a node; it is made where there is none yet.

    Args:
        state_dir: of the node.
        node_config: a node with data of its own (`data-path`) has a secret, a simulated one an empty one: all that
            it does follows from the run's seed.

    Raises:
        StateError: it cannot be written or read, or is damaged.
    """
    if not is_owned(node_config):
        return Secret()
    path = state_dir / "secret"
    try:
        if not path.exists():
            _make(path)
        key = path.read_bytes()
    except OSError as error:
        raise StateError(
            f"the node's secret {path} cannot be made or read ({error.strerror}): set state-dir to a folder that can "
            "be written",
            outside="its secret cannot be made or read",
        ) from None
    if len(key) != _BYTES:
        raise StateError(
            f"the node's secret {path} is damaged, it has {len(key)} bytes of {_BYTES}: put back a copy of it, or "
            "remove it, and runs go on in another order",
            outside="its secret is damaged",
        )
    return Secret(key)


def _make(path: Path) -> None:
    """Write a new secret, whole or not at all; of several processes the first one's stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(".secret.lock")):
        if path.exists():
            return
        fresh = path.with_name(f".secret.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_BYTES))
        flush(fresh)
        fresh.replace(path)
        flush(path.parent)
