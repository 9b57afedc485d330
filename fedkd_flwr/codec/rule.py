"""The paper's rule, every matrix keeps the same share of its energy, as a rival for the same bytes."""

from collections.abc import Sequence

import numpy as np

from fedkd_flwr.codec.costs import FACTORED_LOST, Floats, Known, component_nbytes, dense_lost, dense_nbytes

VECTOR_BITS = 8  # at least, of what is no matrix

_DOUBT = {32: 1e-3, 16: 1e-3}  # of expected bytes
_CODED_DOUBT = 0.1  # ... where they are Huffman-coded


class Rule:
    """All that the rule can make of an update at some widths, from coarse to fine.

    Unknown singular values are taken to be as large as they can be: no state really keeps more.

    Args:
        tensors: of the update.
        widths: bits that a number may have, the same for all.

    Attributes:
        thresholds: float64 [states], the share of the energy from which on a state holds.
    """

    def __init__(self, tensors: Sequence[Known], widths: Sequence[int]) -> None:
        self._widths = tuple(widths)
        steps = [np.zeros((1 + 2 * len(widths), 0)), *(_steps(tensor, widths) for tensor in tensors if tensor.total)]
        thresholds, *sums = np.concatenate(steps, axis=1)
        order = np.argsort(thresholds, kind="stable")
        last = np.flatnonzero(np.diff(thresholds[order], append=np.inf))
        self.thresholds = thresholds[order][last]
        self._nbytes, self._kept = np.split(np.cumsum(np.stack(sums)[:, order], axis=1)[:, last], 2)

    def expected(self, bits: int, state: int) -> float:
        """Bytes of a state at a width."""
        return float(self._nbytes[self._widths.index(bits), state])

    def finest(self, bits: int, nbytes: float) -> int:
        """The finest state that is expected to take at most `nbytes` at a width; -1: none."""
        return int(np.searchsorted(self._nbytes[self._widths.index(bits)], nbytes, side="right")) - 1

    def keeps(self, bits: int, nbytes: float) -> float:
        """The most energy that the rule may keep within expected `nbytes`."""
        finest = self.finest(bits, nbytes)
        return float(self._kept[self._widths.index(bits), finest]) if finest >= 0 else 0.0


def doubt(bits: int) -> float:
    """The share by which real bytes may differ from expected ones."""
    return _DOUBT.get(bits, _CODED_DOUBT)


def _steps(tensor: Known, widths: Sequence[int]) -> Floats:
    """[1 + 2 widths, steps]: the threshold of each rank and of all numbers at last; by width the bytes more than before
    that, then the energy more.
    """
    ranks = (tensor.numel - 1) // tensor.sides if len(tensor.shares) else 0
    bits = [width if ranks else max(width, VECTOR_BITS) for width in widths]
    sure = 1 - _CODED_DOUBT
    kept = np.outer([1 - sure * FACTORED_LOST[width] for width in bits], tensor.shares[:ranks])
    shares = tensor.shares[:ranks]
    if ranks > len(shares):
        step = shares[-1] - (shares[-2] if len(shares) > 1 else 0.0)
        more = shares[-1] + step * np.arange(1, ranks - len(shares) + 1)
        shares = np.minimum(np.concatenate([shares, more]), 1.0)
        kept = np.hstack([kept, np.tile(np.minimum(more + step, 1.0), (len(bits), 1))])
    rates = np.array([component_nbytes(tensor.sides, width) for width in bits])
    whole = np.array([dense_nbytes(tensor, width) for width in bits])
    nbytes = np.column_stack([np.tile(rates[:, None], ranks), whole - rates * ranks])
    kept = np.column_stack([kept, [1 - sure * dense_lost(tensor, width) for width in bits]])
    return np.vstack([np.append(0.0, shares), nbytes, tensor.total * np.diff(kept, axis=1, prepend=0.0)])
