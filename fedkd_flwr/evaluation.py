"""Scores of a pair's models on held-out examples, at a node and at the server alike."""

from typing import TYPE_CHECKING

import torch

from fedkd_flwr.device import Device
from fedkd_flwr.distillation import Pair
from fedkd_flwr.tasks import Scores, Task

if TYPE_CHECKING:
    import pyarrow as pa


def evaluate(
    pair: Pair, task: Task, examples: "pa.Table", batch_size: int, place: Device
) -> dict[str, dict[str, float]]:
    """Scores by model, `teacher` and `student`, of those that the pair has.

    Args:
        pair: on the device of `place`; it is put into evaluation mode.
        task: of the examples.
        examples: what `task.encode` returned.
        batch_size: of a forward pass.
        place: where and how precisely to compute.
    """
    scores: dict[str, Scores] = {}
    pair.eval()
    with torch.inference_mode():
        for batch in task.batches(examples, batch_size):
            batch = {name: tensor.to(place.device) for name, tensor in batch.items()}
            with torch.autocast(place.device.type, place.autocast, enabled=place.autocast is not None):
                outputs = dict(zip(("teacher", "student"), pair(batch), strict=True))
            for name, output in outputs.items():
                if output is not None:
                    scores.setdefault(name, task.scores()).update(output.logits, batch["labels"])
    return {name: score.compute() for name, score in scores.items()}
