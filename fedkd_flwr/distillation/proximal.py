"""The proximal term of FedProx: local training stays near the shared parameters that it began with."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import AdamW


@torch.no_grad()
def pull_back(optimizer: AdamW, origins: Mapping[Parameter, Tensor], strength: float) -> None:
    """Take the step of strength / 2 * |w - w0|^2 that goes with the last step of AdamW (Li et al., MLSys 2020).

    AdamW moves each number of w by its learning rate times D = 1 / (sqrt(v) + eps) times the gradient's mean. The term
    is solved implicitly in the same metric, w <- (w + s w0) / (1 + s) with s = rate * strength * D (ProxGen, Yun et
    al., NeurIPS 2021). So both together rest where loss + term is least, and no strength is too large.

    Args:
        optimizer: after its step, before its learning rates change.
        origins: w0 of each parameter w that is pulled.
        strength: mu of the term.
    """
    for group in optimizer.param_groups:
        _, beta = group["betas"]
        for parameter in group["params"]:
            if parameter in origins and parameter in optimizer.state:
                state = optimizer.state[parameter]
                second = state["exp_avg_sq"] / (1 - beta ** state["step"])
                pull = group["lr"] * strength / (second.sqrt() + group["eps"])
                parameter.lerp_(origins[parameter], pull / (1 + pull))
