"""The models that a process keeps between messages, so that not every message builds them anew."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from fedkd_flwr.client.trial import try_pair
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.models.build import PairModels, build_pair
from fedkd_flwr.runtime.device import Device

_TRIED = 16
"""Trials that are remembered."""


class PairKey(NamedTuple):
    """The arguments of `build_pair`: equal ones build equal pairs."""

    config: RunConfig
    labels: tuple[str, ...]
    shared_head: bool
    private_seed: int | None


class ModelCache:
    """Keeps the pair that was lent last; the entry of a process owns one and hands it to each client that it makes.

    A pair belongs to one client at a time. Its tensors are as that client leaves them: the next one fills them first.
    """

    def __init__(self) -> None:
        self._kept: tuple[PairKey, PairModels] | None = None
        self._tried: deque[PairKey] = deque(maxlen=_TRIED)

    @contextmanager
    def lend(self, key: PairKey) -> Iterator[PairModels]:
        """Lend the kept pair where it has this key, or else one that is built now; it is kept unless its use fails.

        Raises:
            ModelError: as `build_pair`.
        """
        kept, self._kept = self._kept, None
        models = kept[1] if kept is not None and kept[0] == key else None
        del kept  # a pair of another key makes room before the new one is built
        if models is None:
            models = build_pair(*key)
        yield models
        self._kept = key, models

    def try_once(self, key: PairKey, models: PairModels, place: Device) -> None:
        """Try a lent pair (see `try_pair`), unless one of this key has passed in this process.

        Raises:
            ModelError: as `try_pair`.
        """
        if key not in self._tried:
            try_pair(key.config, key.labels, models, place)
            self._tried.append(key)
