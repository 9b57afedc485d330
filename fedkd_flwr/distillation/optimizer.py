"""AdamW over both models of a pair, and its moments as named tensors that can be stored."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import AdamW

from fedkd_flwr.distillation.schedule import Rate

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def build_optimizer(parameters: Mapping[str, Parameter], rates: Mapping[str, Rate], weight_decay: float = 0.0) -> AdamW:
    """AdamW in which every parameter learns at a rate of its own, and only matrices decay.

    Each of its groups has the full rate as `lr`, and the whole as `rate`.

    Args:
        parameters: by name, as `ParameterGroups.trainable` gives them.
        rates: by the same names.
        weight_decay: of tensors with two or more dimensions.
    """
    groups: dict[tuple[Rate, bool], list[Parameter]] = {}
    for name, parameter in parameters.items():
        groups.setdefault((rates[name], parameter.ndim > 1), []).append(parameter)
    return AdamW(
        [
            {"params": members, "lr": rate.full, "rate": rate, "weight_decay": weight_decay if matrix else 0.0}
            for (rate, matrix), members in groups.items()
        ],
        fused=True,
    )


def moments(optimizer: AdamW, parameters: Mapping[str, Parameter]) -> dict[str, Tensor]:
    """The optimiser's state: `NAME/exp_avg`, `NAME/exp_avg_sq` and `NAME/step` of every parameter updated so far."""
    return {
        f"{name}/{kind}": optimizer.state[parameter][kind]
        for name, parameter in parameters.items()
        for kind in _MOMENTS
        if parameter in optimizer.state
    }


def steps_taken(optimizer: AdamW) -> int:
    """Of the parameter that has taken most."""
    return max((int(state["step"]) for state in optimizer.state.values()), default=0)


def load_moments(optimizer: AdamW, parameters: Mapping[str, Parameter], stored: Mapping[str, Tensor]) -> None:
    """Put what `moments` returned back, on each parameter's device; names that are not stored start afresh."""
    for name, parameter in parameters.items():
        if f"{name}/step" in stored:
            optimizer.state[parameter] = {
                kind: torch.clone(stored[f"{name}/{kind}"]).to(parameter.device) for kind in _MOMENTS
            }
