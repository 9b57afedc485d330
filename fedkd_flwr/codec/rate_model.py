"""What a tensor is expected to cost and to lose in each form; only shares depend on it, what is sent is counted."""

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
class Known:
    """What is known of a tensor.

    Attributes:
        numel: its numbers.
        sides: out + rest of the matrix that it is flattened to.
        total: its squared norm.
        shares: float64 [k], of it in the leading 1, 2, ... singular values, as many as are known; empty: no factors.
        scales: that it has number by number.
        crest: mean squared peak of the numbers of a scale over the mean square.
    """

    numel: int
    sides: int
    total: float
    shares: Floats
    scales: int = 1
    crest: float = 4.4


def component_nbytes(sides: int, bits: int) -> float:
    """Of a component of a matrix whose sides sum to `sides`: its numbers and its scale."""
    return sides * _FACTORED_RATE[bits] / 8 + (2 if bits < 32 else 0)


def dense_nbytes(tensor: Known, bits: int) -> float:
    """Of all numbers on a uniform grid."""
    if bits == 32:
        return 4 * tensor.numel + _OVERHEAD
    rate = float(bits)
    if bits < 16 and tensor.crest:
        rate = min(rate, max(1.0, log2(_GAUSSIAN_RANGE * _largest(bits) / tensor.crest**0.5) + _HUFFMAN))
    return tensor.numel * rate / 8 + 2 * tensor.scales + _OVERHEAD


def dense_lost(tensor: Known, bits: int) -> float:
    """Squared error of all numbers on a uniform grid, relative to the square."""
    if bits >= 16:
        return 0.0 if bits == 32 else 1e-7
    return min(1.0, tensor.crest / (12 * _largest(bits) ** 2))


def _largest(bits: int) -> int:
    return (1 << (bits - 1)) - 1
