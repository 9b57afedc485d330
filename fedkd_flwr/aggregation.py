"""How the updates of a round become one: a mean, or what a few wrong ones cannot move far."""

from collections.abc import Mapping
from statistics import median
from typing import Protocol

import torch
from torch import Tensor

from fedkd_flwr.config import RunConfig

Update = Mapping[str, Tensor]


def weight(config: RunConfig, examples: int) -> float:
    """Of a node with so many training examples in the means over the nodes."""
    return 1.0 if config.aggregation == "uniform" else examples


class Aggregation(Protocol):
    """Takes the updates of a round, float32 tensors of the same names and shapes each time, one after the other."""

    def add(self, node: str, update: Update, weight: float) -> None:
        """Take in the update of a node; the order decides the last bits of the result.

        Args:
            node: its name.
            update: the tensors.
            weight: in a mean.
        """

    def compute(self) -> dict[str, Tensor]:
        """The round's update."""

    def shortened(self) -> dict[str, float]:
        """Nodes whose update was too long: how many times as long as the median one."""


class WeightedMean:
    """sum(weight * update) / sum(weight); only the sum is held."""

    def __init__(self) -> None:
        self._sum: dict[str, Tensor] = {}
        self._weight = 0.0

    def add(self, node: str, update: Update, weight: float) -> None:
        """See `Aggregation`."""
        self._weight += weight
        for name, tensor in update.items():
            if name in self._sum:
                self._sum[name].add_(tensor, alpha=weight)
            else:
                self._sum[name] = tensor * weight

    def compute(self) -> dict[str, Tensor]:
        """See `Aggregation`."""
        return {name: tensor / self._weight for name, tensor in self._sum.items()}

    def shortened(self) -> dict[str, float]:
        """None are."""
        return {}


class ClippedMean(WeightedMean):
    """A weighted mean of updates, none of them longer than `limit` times the round's median L2 norm.

    Holds all updates until the median is known. (Norm bounding: Sun et al., arXiv:1911.07963.)
    """

    def __init__(self, limit: float) -> None:
        super().__init__()
        self._limit = limit
        self._updates: list[tuple[str, Update, float, float]] = []
        self._shortened: dict[str, float] = {}

    def add(self, node: str, update: Update, weight: float) -> None:
        """See `Aggregation`."""
        self._updates.append((node, update, weight, norm(update)))

    def compute(self) -> dict[str, Tensor]:
        """See `Aggregation`."""
        middle = median(length for *_, length in self._updates)
        for node, update, weight, length in self._updates:
            if length > self._limit * middle:
                self._shortened[node] = length / middle if middle else float("inf")
                factor = self._limit * middle / length
                update = {name: tensor * factor for name, tensor in update.items()}
            super().add(node, update, weight)
        return super().compute()

    def shortened(self) -> dict[str, float]:
        """See `Aggregation`."""
        return self._shortened


class Median:
    """The median of each number (Yin et al., ICML 2018): fewer than half of the nodes may send anything.

    Weights do not count. Between two middle numbers lies their mean.
    """

    def __init__(self) -> None:
        self._updates: list[Update] = []

    def add(self, node: str, update: Update, weight: float) -> None:
        """See `Aggregation`."""
        self._updates.append(update)

    def compute(self) -> dict[str, Tensor]:
        """See `Aggregation`."""
        low, high = (len(self._updates) - 1) // 2, len(self._updates) // 2
        medians = {}
        for name in self._updates[0]:
            ordered = torch.stack([update[name] for update in self._updates]).sort(dim=0).values
            medians[name] = (ordered[low] + ordered[high]) / 2
        return medians

    def shortened(self) -> dict[str, float]:
        """None are."""
        return {}


def build_aggregation(config: RunConfig) -> Aggregation:
    """What the run asks for."""
    if config.aggregation == "median":
        return Median()
    return ClippedMean(config.max_update_norm) if config.max_update_norm else WeightedMean()


def norm(update: Update) -> float:
    """L2 norm over all tensors."""
    return float(torch.stack([tensor.norm() for tensor in update.values()]).norm()) if update else 0.0
