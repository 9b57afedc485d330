"""What travels, as models at the server: where they start, how they score, how they are exported."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fedkd_flwr import tensors
from fedkd_flwr.assembly import build_global, build_student, frozen_digest
from fedkd_flwr.config import RunConfig
from fedkd_flwr.data import load_examples, with_labels
from fedkd_flwr.device import choose_device
from fedkd_flwr.distillation import Nested, Single
from fedkd_flwr.evaluation import evaluate
from fedkd_flwr.models import export
from fedkd_flwr.protocol import Scores
from fedkd_flwr.tasks import build_task


class ServerModel:
    """What travels of one run as models, built from checkpoint, seed and labels as every node builds it.

    Attributes:
        initial: what travels, before any training, float32 on the CPU; {}: nothing does.
        frozen_digest: SHA-256 of the tensors that never travel.
    """

    def __init__(self, config: RunConfig, labels: tuple[str, ...]) -> None:
        self._config = config
        self._student = build_student(config, labels)
        self._pair = build_global(config, labels, self._student)
        self._task = build_task(config, labels)
        self.initial = tensors.snapshot(self._pair.shared())
        self.frozen_digest = frozen_digest(self._student)
        source = config.server_test_data
        self._test = self._task.encode(with_labels(load_examples(source, config), labels, source)) if source else None

    def score(self, shared: Mapping[str, Tensor]) -> Scores | None:
        """The student's scores on the server's test data; None where the run has none, or no student."""
        if self._test is None or not shared:
            return None
        self._load(shared)
        place = choose_device("cpu" if self._config.device == "cpu" else "auto", "fp32")
        alone = Single(self._student, travels=True).to(place.device)
        scores = evaluate(alone, self._task, self._test, 2 * self._config.batch_size, place)
        alone.to("cpu")
        return scores["student"]

    def export(self, shared: Mapping[str, Tensor], folder: Path) -> None:
        """Write `from_pretrained` folders of what the run has: `student`, and `teacher` where all of it travels."""
        if not shared:
            return
        self._load(shared)
        export(self._student, self._task.tokenizer, folder / "student")
        if isinstance(self._pair, Nested) and not self._pair.private():
            export(self._pair.teacher, self._task.tokenizer, folder / "teacher")

    def _load(self, shared: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._pair.shared().items():
                parameter.copy_(shared[name])
