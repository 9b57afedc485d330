"""How the updates of a round become one: a mean, or what a few wrong ones cannot move far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Protocol

import torch
from torch import Tensor

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.weights import capped

Update = Mapping[str, Tensor]


class Encoded(Protocol):
    """An update as it was sent: small, and decoded each time that it is needed."""

    def decode(self) -> Update:
        """Its tensors, float32."""


@dataclass(frozen=True)
class Sent:
    """The update of a node.

    Attributes:
        node: its name.
        encoded: the update; those of a round have the same names and shapes.
        examples: training examples of the node, as it joined with them.
        norm: L2 norm over all tensors.
    """

    node: str
    encoded: Encoded
    examples: int
    norm: float


@dataclass(frozen=True)
class Aggregated:
    """What the updates of a round became.

    Attributes:
        update: the tensors.
        shortened: nodes whose update was too long -> how many times as long as the median one.
        lightened: nodes whose weight was too large -> their share of all examples.
    """

    update: dict[str, Tensor]
    shortened: Mapping[str, float] = field(default_factory=dict)
    lightened: Mapping[str, float] = field(default_factory=dict)


def weights(config: RunConfig, examples: Sequence[int]) -> list[float]:
    """The weights in a mean of nodes with so many examples, none above its share of the sum; see `capped`."""
    return (
        [1.0] * len(examples)
        if config.federation.aggregation == "uniform"
        else capped(examples, config.federation.max_weight_share)
    )


def aggregate(config: RunConfig, sent: Sequence[Sent]) -> Aggregated:
    """The update of a round; the order of those sent decides its last bits.

    None counts as longer than `federation.max-update-norm` times the median L2 norm (Sun et al., arXiv:1911.07963).
    Each mean decodes one update after the other and holds their sum alone; a median holds all.
    """
    middle = median(one.norm for one in sent)
    longest = config.federation.max_update_norm * middle if config.federation.max_update_norm else float("inf")
    factors = [longest / one.norm if one.norm > longest else 1.0 for one in sent]
    shortened = {
        one.node: one.norm / middle if middle else float("inf")
        for one, factor in zip(sent, factors, strict=True)
        if factor < 1
    }
    if config.federation.aggregation == "median":
        return Aggregated(_median([_scaled(one, factor) for one, factor in zip(sent, factors, strict=True)]), shortened)
    examples = [one.examples for one in sent]
    held = weights(config, examples)
    lightened = {
        one.node: one.examples / sum(examples)
        for one, weight in zip(sent, held, strict=True)
        if config.federation.aggregation == "examples" and weight < one.examples
    }
    mean: dict[str, Tensor] = {}
    for one, factor, weight in zip(sent, factors, held, strict=True):
        for name, tensor in _scaled(one, factor).items():
            if name in mean:
                mean[name].add_(tensor, alpha=weight)
            else:
                mean[name] = tensor * weight
    return Aggregated({name: tensor / sum(held) for name, tensor in mean.items()}, shortened, lightened)


def norm(update: Update) -> float:
    """L2 norm over all tensors."""
    return float(torch.stack([tensor.norm() for tensor in update.values()]).norm()) if update else 0.0


def _scaled(sent: Sent, factor: float) -> Update:
    update = sent.encoded.decode()
    return update if factor == 1 else {name: tensor * factor for name, tensor in update.items()}


def _median(updates: Sequence[Update]) -> dict[str, Tensor]:
    """The median of each number (Yin et al., ICML 2018): fewer than half of the nodes may send anything.

    Weights do not count. Between two middle numbers lies their mean.
    """
    low, high = (len(updates) - 1) // 2, len(updates) // 2
    medians = {}
    for name in updates[0]:
        ordered = torch.stack([update[name] for update in updates]).sort(dim=0).values
        medians[name] = (ordered[low] + ordered[high]) / 2
    return medians
