"""Weights of classes in the task loss, so that rare ones are not passed over.

The mean of w_y * cross-entropy is least where softmax(logits)_y is in proportion to w_y P(y | x): logits then hold for
label shares in proportion to w_y pi_y instead of pi_y (of several labels: for odds times w_y). All nodes that share a
head have the same weights. Logit adjustment therefore stays as it is: node k learns on logits + log(pi_ky / pi_y), and
the logits come to log P(x | y) + log pi_y + log w_y at every node, whatever its own shares pi_k are, so that no
frequency counts twice. Weights from each node's own shares would put back into shared heads what it takes out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedkd_flwr.tasks.base import Task
from fedkd_flwr.tasks.label_priors import Link

CAP = 10.0
"""Of balanced weights: above it the few examples of a very rare class would make up most of the batches they are in."""


def class_weights(setting: str, shares: Sequence[float], link: Link | None) -> Tensor | None:
    """What each class weighs, float32 [classes]; None: all alike.

    Args:
        setting: run-config key `train.class-weights`.
        shares: of the examples that have each class, between 0 and 1 and never either, for "balanced".
        link: sigmoid: a weight is that of an example with the class against one without it.
    """
    if setting == "none":
        return None
    if setting != "balanced":
        return torch.tensor([float(number) for number in setting.split(",")])
    share = torch.tensor(shares, dtype=torch.float64)
    weights = (1 - share) / share if link == "sigmoid" else share.mean() / share
    return weights.clamp(max=CAP).float()


@dataclass(frozen=True)
class WeightedLosses:
    """The losses of a task whose classes weigh differently; the divergence is as it was.

    Attributes:
        task: with classes.
        weights: of these, float32 [classes], on the device of the logits.
    """

    task: Task
    weights: Tensor

    def task_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `Task.task_loss`."""
        return self.task.task_loss(logits, labels, self.weights)

    def divergence(self, target_logits: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """See `Task.divergence`."""
        return self.task.divergence(target_logits, logits, labels)
