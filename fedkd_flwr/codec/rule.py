"""The paper's rule, every matrix keeps the same share of its energy, as a rival for the same bytes."""

from collections.abc import Sequence

import numpy as np

from fedkd_flwr.codec.costs import FACTORED_LOST, Floats, Known, component_nbytes, dense_lost, dense_nbytes

VECTOR_BITS = 8  # at least, of what is no matrix

_DOUBT = {32: 1e-3, 16: 1e-3}  # of expected bytes
_CODED_DOUBT = 0.1  # ... where they are Huffman-coded


class Rule:
    """All that the rule can make of an update at one width, from coarse to fine.

    Unknown singular values are taken to be as large as they can be: no state really keeps more.

    Args:
        tensors: of the update.
        bits: of each number.

    Attributes:
        thresholds: float64 [states], the share of the energy from which on a state holds.
    """

    def __init__(self, tensors: Sequence[Known], bits: int) -> None:
        self._doubt = _DOUBT.get(bits, _CODED_DOUBT)
        steps = [np.zeros((3, 0)), *(_steps(tensor, bits) for tensor in tensors if tensor.total)]
        thresholds, nbytes, kept = np.concatenate(steps, axis=1)
        order = np.argsort(thresholds, kind="stable")
        last = np.flatnonzero(np.diff(thresholds[order], append=np.inf))
        self.thresholds = thresholds[order][last]
        self._nbytes, self._kept = np.cumsum(nbytes[order])[last], np.cumsum(kept[order])[last]

    def states(self, nbytes: float) -> range:
        """Those among which is the finest that `nbytes` carry."""
        start = int(np.searchsorted(self._nbytes, nbytes * (1 - self._doubt)))
        return range(start, int(np.searchsorted(self._nbytes, nbytes * (1 + self._doubt), side="right")))

    def keeps(self, nbytes: float) -> float:
        """The most energy that the rule may keep within `nbytes`."""
        finest = self.states(nbytes).stop
        return float(self._kept[finest - 1]) if finest else 0.0


def _steps(tensor: Known, bits: int) -> Floats:
    """[3, steps]: the threshold of each rank and of all numbers at last, bytes and energy more than before."""
    ranks = (tensor.numel - 1) // tensor.sides if len(tensor.shares) else 0
    bits = bits if ranks else max(bits, VECTOR_BITS)
    shares = tensor.shares[:ranks]
    kept = shares * (1 - (1 - _CODED_DOUBT) * FACTORED_LOST[bits])
    if ranks > len(shares):
        step = shares[-1] - (shares[-2] if len(shares) > 1 else 0.0)
        more = shares[-1] + step * np.arange(1, ranks - len(shares) + 1)
        shares = np.minimum(np.concatenate([shares, more]), 1.0)
        kept = np.concatenate([kept, np.minimum(more + step, 1.0)])
    nbytes = np.append(component_nbytes(tensor.sides, bits) * np.arange(1, ranks + 1), dense_nbytes(tensor, bits))
    kept = tensor.total * np.append(kept, 1 - (1 - _CODED_DOUBT) * dense_lost(tensor, bits))
    return np.stack([np.append(0.0, shares), np.diff(nbytes, prepend=0.0), np.diff(kept, prepend=0.0)])
