"""Scores of a pair's models on held-out examples, at a node and at the server alike."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedkd_flwr.distillation import Pair
from fedkd_flwr.runtime.device import Device
from fedkd_flwr.tasks.base import Scores, Task

if TYPE_CHECKING:
    import pyarrow as pa

OWN_LABELS = "-own-labels"
"""What ends the name of a model that is adjusted to how frequent labels are at its node."""


def evaluate(
    pair: Pair,
    task: Task,
    examples: "pa.Table",
    batch_size: int,
    place: Device,
    adjustment: Tensor | None = None,
    tied: Mapping[str, Tensor] | None = None,
) -> dict[str, dict[str, float]]:
    """Scores by model, of one forward pass.

    Args:
        pair: on the device of `place`; it is put into evaluation mode.
        task: of the examples.
        examples: what `task.encode` returned.
        batch_size: of a forward pass.
        place: where and how precisely to compute.
        adjustment, tied: as `Pair.forward` takes them.

    Returns:
        Of `teacher` and `student`, where the pair has them, scores as the models are; and of those to whose logits
        `adjustment` is added, as `teacher-own-labels` and `student-own-labels`, scores with that.
    """
    scores: dict[str, Scores] = {}
    pair.eval()
    with torch.inference_mode():
        for batch in task.batches(examples, batch_size):
            batch = {name: tensor.to(place.device) for name, tensor in batch.items()}
            with torch.autocast(place.device.type, place.autocast, enabled=place.autocast is not None):
                outputs = dict(zip(("teacher", "student"), pair(batch, adjustment, tied), strict=True))
            for name, output in outputs.items():
                if output is None:
                    continue
                found = {name: output.logits}
                if output.plain is not None:
                    found = {name: output.plain, f"{name}{OWN_LABELS}": output.logits}
                for model, logits in found.items():
                    scores.setdefault(model, task.scores()).update(logits, batch["labels"])
    return {model: score.compute() for model, score in scores.items()}
