"""Expected bytes and squared error of a tensor in each form.

The split of a budget depends on them and nothing else does: what is sent is counted, what it keeps is measured.
"""

from dataclasses import dataclass
from math import log2

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Components of a matrix: bits that a number takes on the wire, and squared error of both sides relative to the square,
# by width; measured on real updates (benchmarks/codec.py).
_FACTORED_RATE = {32: 32.0, 16: 16.0, 8: 7.3, 6: 5.25, 5: 4.2, 4: 3.1, 3: 2.0}
FACTORED_LOST = {32: 0.0, 16: 1e-7, 8: 7e-5, 6: 1.2e-3, 5: 5e-3, 4: 2.3e-2, 3: 0.13}
FACTORED_OVERHEAD = 40  # bytes: a header, the code table of the Huffman coder

_OVERHEAD = 6  # bytes of a header
_GAUSSIAN_RANGE = 4.13  # 2^entropy of a unit Gaussian: a grid of step s takes log2(4.13 / s) bits a number
_HUFFMAN = 0.05  # bits above the entropy


@dataclass(frozen=True, eq=False)
class TensorStatistics:
    """Numbers that tell what a tensor costs and loses in each form.

    Attributes:
        numel: its numbers.
        sides: out + rest of the matrix [out, rest] that it is flattened to.
        energy: its squared norm.
        shares: float64 [k], of its energy in the leading 1, 2, ... k components, as many as are known; empty: it has
            no factors.
        scales: scales that it has number by number.
        crest: mean squared peak of the numbers of a scale over the mean square.
    """

    numel: int
    sides: int
    energy: float
    shares: Floats
    scales: int = 1
    crest: float = 4.4


def component_nbytes(sides: int, bits: int) -> float:
    """Bytes of a component, a column of one factor and a row of the other, with its scale.

    Args:
        sides: its numbers, out + rest.
        bits: of each.
    """
    return sides * _FACTORED_RATE[bits] / 8 + (2 if bits < 32 else 0)


def dense_nbytes(tensor: TensorStatistics, bits: int) -> float:
    """Bytes of all numbers on a uniform grid, Huffman-coded where that is shorter.

    The step of the grid is the peak over the largest code: a high crest makes it coarse, most codes small, and
    the entropy low.
    """
    if bits == 32:
        return 4 * tensor.numel + _OVERHEAD
    rate = float(bits)
    if bits < 16 and tensor.crest:
        rate = min(rate, max(1.0, log2(_GAUSSIAN_RANGE * _largest(bits) / tensor.crest**0.5) + _HUFFMAN))
    return tensor.numel * rate / 8 + 2 * tensor.scales + _OVERHEAD


def dense_lost(tensor: TensorStatistics, bits: int) -> float:
    """Squared error of all numbers on a uniform grid, relative to the square: step^2 / 12."""
    if bits >= 16:
        return 0.0 if bits == 32 else 1e-7
    return min(1.0, tensor.crest / (12 * _largest(bits) ** 2))


def _largest(bits: int) -> int:
    return (1 << (bits - 1)) - 1
