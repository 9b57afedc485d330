"""Logits, losses and numbers, as all tasks take them."""

import math

import torch
from torch import Tensor, nn

from fedkd_flwr.errors import RunError


def full(logits: Tensor) -> Tensor:
    """At least float32."""
    return logits if logits.dtype == torch.float64 else logits.float()


def softmax_divergence(target_logits: Tensor, logits: Tensor) -> Tensor:
    """KL(softmax(target) || softmax(logits)) at temperature 1 of logits [n, classes], mean over n, at least float32."""
    target, output = (nn.functional.log_softmax(full(x), dim=-1) for x in (target_logits, logits))
    return nn.functional.kl_div(output, target, log_target=True, reduction="batchmean")


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Mean of w_label * cross-entropy over logits [n, classes] and labels int64 [n], at least float32.

    It is divided by n. Divided by the weights in it, as torch's own mean is, a small batch without a rare class would
    count as much as one with it, and a node with few of them as much as one with many.

    Args:
        logits, labels: of n examples.
        weights: of the classes, [classes]; None: all alike.
    """
    logits = full(logits)
    if weights is None:
        return nn.functional.cross_entropy(logits, labels)
    return nn.functional.cross_entropy(logits, labels, weights.to(logits.dtype), reduction="sum") / len(labels)


def finite(loss: float) -> float:
    """The loss on held-out examples.

    Raises:
        RunError: it is not finite.
    """
    if not math.isfinite(loss):
        raise RunError(
            f"the loss on the held-out examples is {loss}: the model has diverged, lower train.learning-rate"
        )
    return loss


def scale(labels: tuple[str, ...]) -> tuple[float, float]:
    """Middle and half range of the numbers between the lowest and the highest, which are the labels of numbers."""
    low, high = map(float, labels)
    return (low + high) / 2, (high - low) / 2
