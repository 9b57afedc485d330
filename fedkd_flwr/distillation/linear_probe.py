"""New heads start fitted to what the encoders below them say, not from random values."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from fedkd_flwr.distillation.losses import TaskLosses
from fedkd_flwr.distillation.pair import PLACES, Pair
from fedkd_flwr.distillation.parameter_groups import TEACHER
from fedkd_flwr.distillation.separate import at_places

RIDGE = 1e-3
"""Of the penalty RIDGE / 2 * (mean |x|^2 * |W|^2 + |b|^2) on a fitted layer W, b; chosen by measurement
(docs/results/start.md). The bias of a class that no example has comes to rest near that of one in several hundred."""

_STEPS = 100


def fit_heads(
    pair: Pair,
    layers: Mapping[str, nn.Linear],
    batches: Iterable[Mapping[str, Tensor]],
    losses: TaskLosses,
    device: torch.device,
    autocast: torch.dtype | None = None,
    adjustment: Tensor | None = None,
) -> None:
    """Fit the linear layers that make logits, in place, while all below them stays as it is.

    With x what reaches a layer from an example without dropout, it comes to minimise the mean of task loss(W x + b) and
    a penalty (see `RIDGE`), convex in W and b, by L-BFGS: linear probing before fine-tuning (Kumar et al., ICLR 2022;
    in federations: Legate et al., NeurIPS 2023). The batches pass the encoders once.

    Args:
        pair: on `device`; it is put into evaluation mode.
        layers: of "teacher", "student" or both, whose outputs the pair returns, adjusted or not, as that model's.
        batches: mappings of [B, ...] tensors, `labels` among them.
        losses: the task's own loss.
        device: to which each batch is moved.
        autocast: dtype of mixed precision; None: full precision. Layers are fitted in float32.
        adjustment: logits, [classes], on `device`, that are added to what shared heads return; None: nothing is.
    """
    inputs: dict[str, list[Tensor]] = {name: [] for name in layers}
    hooks = [layer.register_forward_pre_hook(partial(_keep, inputs[name])) for name, layer in layers.items()]
    labels = []
    pair.eval()
    try:
        with torch.no_grad(), torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            for batch in batches:
                batch = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
                pair(batch)
                labels.append(batch["labels"])
                if "teacher" in layers and (places := batch.get(f"{TEACHER}{PLACES}")) is not None:
                    inputs["teacher"][-1] = at_places(inputs["teacher"][-1], places)
    finally:
        for hook in hooks:
            hook.remove()
    for name, layer in layers.items():
        _fit(layer, inputs[name], labels, losses, adjustment if name == "student" or pair.teacher_is_shared else None)


def _keep(inputs: list[Tensor], layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
    inputs.append(arguments[0].float())


def _fit(
    layer: nn.Linear, inputs: Sequence[Tensor], labels: Sequence[Tensor], losses: TaskLosses, adjustment: Tensor | None
) -> None:
    """Minimise over the weights of one layer; inputs and labels by batch."""
    examples = sum(map(len, labels))
    square = sum(float(x.square().sum()) for x in inputs) / sum(x[..., 0].numel() for x in inputs)
    added = 0.0 if adjustment is None else adjustment
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        total = RIDGE / 2 * square * layer.weight.square().sum()
        if layer.bias is not None:
            total = total + RIDGE / 2 * layer.bias.square().sum()
        for x, y in zip(inputs, labels, strict=True):
            total = total + losses.task_loss(layer(x) + added, y) * len(y) / examples
        torch.autograd.backward(total)
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    optimizer.zero_grad()
