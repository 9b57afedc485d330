"""Scores of decisions and rankings, of tensors on the CPU.

Plain tensor operations: Flower starts a process for every message, and a library of metrics, with all that it imports,
would cost that process a second of CPU time.
"""

import torch
from torch import Tensor


class Decisions:
    """How often each class was right, decided and there; what F1 and accuracy are made of."""

    def __init__(self, classes: int) -> None:
        self._right, self._decided, self._there = (torch.zeros(classes, dtype=torch.int64) for _ in range(3))

    def update(self, decided: Tensor, there: Tensor) -> None:
        """Take in a batch: which classes each example was given, and has, bool [batch, classes]."""
        self._right += (decided & there).sum(0)
        self._decided += decided.sum(0)
        self._there += there.sum(0)

    @property
    def recall(self) -> float:
        """The part of what is there that was decided: accuracy, where each example has one class and is given one."""
        return float(self._right.sum() / self._there.sum())

    @property
    def micro_f1(self) -> float:
        """F1 of all decisions; 0 where there are none to be made."""
        return float(2 * self._right.sum() / (self._decided.sum() + self._there.sum()).clamp(min=1))

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that are there or were decided on; 0 where there is none."""
        counts = self._decided + self._there
        return mean(self.f1[counts > 0])

    @property
    def f1(self) -> Tensor:
        """F1 of each class, [classes]; 0 where it is not there and was not decided on."""
        return 2 * self._right.double() / (self._decided + self._there).clamp(min=1)


def average_precision(scores: Tensor, positive: Tensor) -> float:
    """Sum over the thresholds of the precision times the recall that each adds; 0 where nothing is positive.

    Args:
        scores: [n], higher for what is more likely positive; equal ones have one threshold.
        positive: bool [n].
    """
    scores, order = scores.sort(descending=True)
    found = positive[order].double().cumsum(0)
    last = torch.ones_like(positive)
    last[:-1] = scores[1:] != scores[:-1]
    found, taken = found[last], (1 + torch.arange(len(scores)))[last]
    added = found.diff(prepend=found.new_zeros(1))
    return float((added * found / taken).sum() / found[-1].clamp(min=1))


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's, of numbers [n] that are not all alike; equal ones share the mean of their ranks."""
    return float(torch.corrcoef(torch.stack([_ranks(one), _ranks(other)]))[0, 1])


def mean(values: Tensor) -> float:
    """0 of none."""
    return float(values.mean()) if len(values) else 0.0


def _ranks(values: Tensor) -> Tensor:
    _, place, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last, shared = counts.cumsum(0).double(), counts.double()
    ranks: Tensor = (last - (shared - 1) / 2)[place]
    return ranks
