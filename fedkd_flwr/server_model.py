"""The student as a model at the server: where it starts, how it scores, how it is exported."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedkd_flwr import tensors
from fedkd_flwr.assembly import build_student, frozen_digest
from fedkd_flwr.config import RunConfig
from fedkd_flwr.data import load_examples, with_labels
from fedkd_flwr.device import choose_device
from fedkd_flwr.distillation import Single, trainable
from fedkd_flwr.evaluation import evaluate
from fedkd_flwr.models import export
from fedkd_flwr.protocol import Scores
from fedkd_flwr.tasks import build_task

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ServerModel:
    """The student of one run, built from checkpoint, seed and labels as every node builds it.

    Attributes:
        initial: what travels of it, before any training, float32 on the CPU; {}: nothing does.
        frozen_digest: SHA-256 of the tensors that never travel.
    """

    def __init__(self, config: RunConfig, labels: tuple[str, ...]) -> None:
        self._config = config
        self._model = build_student(config, labels)
        self._task = build_task(config, labels)
        travels = "student" in config.parts.trains
        self.initial = tensors.snapshot(trainable(self._model)) if travels else {}
        self.frozen_digest = frozen_digest(self._model)
        source = config.server_test_data
        self._test = self._task.encode(with_labels(load_examples(source, config), labels, source)) if source else None

    def score(self, student: Mapping[str, Tensor]) -> Scores | None:
        """Scores on the server's test data; None where the run has none, or no student."""
        if self._test is None or not student:
            return None
        place = choose_device("cpu" if self._config.device == "cpu" else "auto", "fp32")
        pair = Single(self._load(student), travels=True).to(place.device)
        scores = evaluate(pair, self._task, self._test, 2 * self._config.batch_size, place)
        pair.to("cpu")
        return scores["student"]

    def export(self, student: Mapping[str, Tensor], folder: Path) -> None:
        """Write a `from_pretrained` folder of the student, where the run has one."""
        if student:
            export(self._load(student), self._task.tokenizer, folder)

    def _load(self, student: Mapping[str, Tensor]) -> "PreTrainedModel":
        with torch.no_grad():
            for name, parameter in trainable(self._model).items():
                parameter.copy_(student[name])
        return self._model
