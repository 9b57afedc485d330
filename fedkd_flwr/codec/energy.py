"""The share of a tensor's energy, its squared norm, that an encoding keeps, in one byte of the wire.

Byte 255 says that nothing was dropped, byte c < 255 that at most 2^(-c / 12) of the energy was: steps of 6 % of what is
dropped, down to DOUBT.
"""

import math

import torch
from torch import Tensor

from fedkd_flwr.codec.shapes import matrix_shape
from fedkd_flwr.errors import CodecError

DOUBT = 2.0**-18
"""What float32 arithmetic may get wrong in a share: a sender claims so much less than it measures."""

STEPS_AN_OCTAVE = 12
_NOTHING_DROPPED = 255
_ROUNDING = 1e-6  # of a step: what was read is written again as it was
_IN_RANGE = (1e-20, 1e30)


def squared_norm(tensor: Tensor) -> float:
    """The squared Frobenius norm of a float32 tensor, its energy.

    Rows are summed in float32, four times as fast, where their squares are in its range.
    """
    rows = tensor.detach().reshape(matrix_shape(tuple(tensor.shape)))
    in_float32 = torch.linalg.vector_norm(rows, dim=1).double().square().sum()
    if _IN_RANGE[0] < in_float32 < _IN_RANGE[1]:
        return float(in_float32)
    return float(torch.linalg.vector_norm(rows, dtype=torch.float64)) ** 2


def claimed(kept: float) -> float:
    """The share that a sender may claim where it measured `kept` in float32."""
    return max(0.0, kept - DOUBT) if kept < 1 + DOUBT else 0.0


def to_byte(kept: float) -> int:
    """The byte of the largest share that is not above `kept`, in [0, 1]."""
    if kept == 1:
        return _NOTHING_DROPPED
    return min(_NOTHING_DROPPED - 1, int(-STEPS_AN_OCTAVE * math.log2(1 - kept) + _ROUNDING))


def from_byte(byte: int) -> float:
    """The share that a byte stands for."""
    return 1.0 if byte == _NOTHING_DROPPED else 1 - 2.0 ** (-byte / STEPS_AN_OCTAVE)


def check_share(share: float) -> None:
    """Raise CodecError unless `share`, of an energy to keep, is in (0, 1]."""
    if not 0 < share <= 1:
        raise CodecError(f"the energy to keep must be in (0, 1], got {share}")
