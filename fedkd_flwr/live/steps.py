"""How far a node is with its training, told as it goes."""

import time
from collections.abc import Iterator
from typing import TypeVar

from fedkd_flwr.live.channel import heard, tell
from fedkd_flwr.live.events import Stepped

_SECONDS = 0.5
"""Between two events: a step of a small model takes less than it takes to look."""

Batch = TypeVar("Batch")


def counted(batches: Iterator[Batch], of: int, node: str) -> Iterator[Batch]:
    """The batches, each told once it was trained on, where anybody listens.

    Args:
        batches: of a round.
        of: how many there are.
        node: name of the node that trains on them.
    """
    return _counted(batches, of, node) if heard() else batches


def _counted(batches: Iterator[Batch], of: int, node: str) -> Iterator[Batch]:
    told = time.monotonic()
    tell(Stepped(node=node, batches=0, of=of))
    for number, batch in enumerate(batches, 1):
        yield batch
        if number == of or time.monotonic() - told >= _SECONDS:
            tell(Stepped(node=node, batches=number, of=of))
            told = time.monotonic()
