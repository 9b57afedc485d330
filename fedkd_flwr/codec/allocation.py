"""The rules by which the tensors of an update get their bytes: an energy each, a budget together, all numbers alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fedkd_flwr.codec.energy import check_share
from fedkd_flwr.errors import CodecError

if TYPE_CHECKING:
    from torch import Tensor

    from fedkd_flwr.codec.update import EncodedUpdate


@dataclass(frozen=True)
class Energy:
    """Every matrix keeps more than a share of its own energy, its squared norm (FedKD, Eq 8).

    Args:
        share: in (0, 1]; at 1 a matrix keeps its full rank.

    Raises:
        CodecError: the share is out of range.
    """

    share: float

    def __post_init__(self) -> None:
        check_share(self.share)


@dataclass(frozen=True)
class Budget:
    """The whole encoded update, header and checksum included, keeps as much energy as a number of bytes can.

    Args:
        nbytes: at most so many bytes, 1 or more.

    Raises:
        CodecError: the budget is not positive.
    """

    nbytes: int

    def __post_init__(self) -> None:
        if self.nbytes < 1:
            raise CodecError(f"a budget must be positive, got {self.nbytes} bytes")


@dataclass(frozen=True)
class Uniform:
    """Every number is sent, in the same bits.

    Args:
        rotated: matrices are rotated first, and sent in 1 to 4 bits.
    """

    rotated: bool = False


class OwnRule(Protocol):
    """A rule that another package brings."""

    def encode(self, update: "Mapping[str, Tensor]", bits: int | None) -> "EncodedUpdate":
        """Encode finite float32 tensors on the CPU, in so many bits a number; None: as many as the rule thinks best."""


Allocation = Energy | Budget | Uniform | OwnRule
