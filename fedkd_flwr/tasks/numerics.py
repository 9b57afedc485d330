"""Logits and losses, as all tasks take them."""

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


def finite(loss: float) -> float:
    """The loss on held-out examples.

    Raises:
        RunError: it is not finite.
    """
    if not math.isfinite(loss):
        raise RunError(f"the loss on the held-out examples is {loss}: the model has diverged, lower learning-rate")
    return loss
