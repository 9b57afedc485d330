"""The shared parameters as models at the server: where they start, how they score, how they are exported."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from logging import getLogger
from pathlib import Path

import torch
from torch import Tensor

from fedkd_flwr import tensors
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.data import DataSettings, load_test_data
from fedkd_flwr.distillation import Nested, Single, batch_norms
from fedkd_flwr.errors import ConfigError, ModelError
from fedkd_flwr.messages import Scores
from fedkd_flwr.models.build import build_global, build_student, frozen_digest
from fedkd_flwr.models.export import export
from fedkd_flwr.models.lora import export_adapters, has_adapters, merged
from fedkd_flwr.models.model_card import About, shown_name
from fedkd_flwr.models.readers import build_task
from fedkd_flwr.runtime.device import choose_device
from fedkd_flwr.server.run_folder import RunState
from fedkd_flwr.tasks.evaluation import evaluate
from fedkd_flwr.tasks.label_priors import adjustment
from fedkd_flwr.tracking.history import Scored

log = getLogger("flwr")

_ANY_LABELS = ("0", "1")
"""Of a head that is there because a model has one; nobody asks it."""


class ServerModel:
    """The shared parameters of one run as models, built from checkpoint, seed and labels as every node builds it.

    Attributes:
        initial: the shared parameters before any training, float32 on the CPU; {}: there are none.
        frozen_digest: SHA-256 of the student's frozen tensors; "": there is no student.
    """

    def __init__(self, config: RunConfig, labels: tuple[str, ...], shared_head: bool = True) -> None:
        """Build the models.

        Args:
            config: of the run.
            labels: of the shared head.
            shared_head: whether heads are shared.

        Raises:
            ConfigError: there are data to score a student on that is no more than an encoder.
        """
        source = config.data.server_test_data
        if source and not shared_head:
            raise ConfigError(
                "run-config key 'data.server-test-data' needs a head that all nodes share, here each has its own: "
                "empty it, "
                "or set model.shared-head to 'always' and data.labels to all labels"
            )
        labels = labels or _ANY_LABELS
        self._config = config
        self._shared_head = shared_head
        self._student = build_student(config, labels) if "student" in config.parts.trains else None
        self._pair = None if self._student is None else build_global(config, labels, self._student, shared_head)
        self._task = build_task(config, labels)
        self.initial = {} if self._pair is None else tensors.snapshot(self._pair.groups().shared)
        self.frozen_digest = "" if self._student is None else frozen_digest(self._student)
        self._test = None
        if source:
            self._test = self._task.encode(load_test_data(source, DataSettings.of(config), labels))

    def score(self, shared: Mapping[str, Tensor]) -> Scores | None:
        """The student's scores on the server's test data; None where the run has none, or no student."""
        if self._test is None or self._student is None:
            return None
        self._load(shared)
        place = choose_device("cpu" if self._config.run.device == "cpu" else "auto", "fp32")
        alone = Single(self._student, shared=True).to(place.device)
        scores = evaluate(alone, self._task, self._test, 2 * self._config.train.batch_size, place)
        alone.to("cpu")
        return scores["student"]

    def export(self, state: RunState, folder: Path, label_shares: Sequence[float] = ()) -> list[Path]:
        """Write `from_pretrained` folders of what there is: `student`, `adapter`, `teacher` where all of it is shared.

        Of a student with private heads there is the encoder; one with batch normalisation has the checkpoint's.

        Args:
            state: the shared parameters, and what is known of them.
            folder: where to.
            label_shares: of examples that have each label, for which the logits are to hold; empty: those of all nodes.

        Returns:
            The folders; none where nothing is shared.

        Raises:
            ModelError: label shares are given of which these models do not say what they hold for, or other than one
                for each label.
        """
        assert state.student is not None
        if self._student is None:
            return []
        held = state.label_shares if self._config.adjusts_logits else ()
        added = self._added(held, label_shares) if label_shares else None
        about = About(
            self._config,
            "student" if self._shared_head else "encoder",
            state.round,
            titles=tuple(str(data.get("title", node)) for node, data in state.history.data.items()),
            scores=_scores(_board(state)),
            label_shares=tuple(label_shares) or held,
        )
        self._load(state.student.tensors)
        exported = [folder / "student"]
        if batch_norms(self._student):
            about = replace(about, model="student without statistics", scores={})
            log.warning(
                "fedkd: %s has its checkpoint's batch normalisation, each node keeps its own: take a node's student, "
                "or let it see images before you use it (docs/models.md)",
                exported[0],
            )
        if not self._shared_head:
            log.info("fedkd: %s holds the student's encoder; each node has exported it with its head", exported[0])
        student = self._student if self._shared_head else self._student.base_model
        with merged(student):
            export(student, self._task.processor, exported[0], about, added)
        if has_adapters(self._student):
            exported.append(folder / "adapter")
            base = shown_name(self._config.student_checkpoint)
            export_adapters(self._student.base_model, exported[-1], base)
        if isinstance(self._pair, Nested) and not self._pair.groups().private:
            exported.append(folder / "teacher")
            export(self._pair.teacher, self._task.processor, exported[-1], replace(about, model="teacher"), added)
        return exported

    def _added(self, held: Sequence[float], asked: Sequence[float]) -> Tensor:
        if not held or self._task.link is None:
            raise ModelError(
                "label shares cannot be given: the run does not say for which its head holds (only of one label or "
                "several a text or image, and only with train.logit-adjustment and a head that all nodes share)"
            )
        if len(asked) != len(held):
            raise ModelError(f"{len(asked)} label shares are given, expected one for each of the {len(held)} labels")
        return adjustment(asked, held, self._task.link)

    def _load(self, shared: Mapping[str, Tensor]) -> None:
        assert self._pair is not None, "a method without a student has nothing to load"
        with torch.no_grad():
            for name, parameter in self._pair.groups().shared.items():
                parameter.copy_(shared[name])


def _board(state: RunState) -> Scored:
    """The scores of what is exported."""
    best = state.history.best
    return best if best is not None and best.round == state.round else state.history.after(state.round)


def _scores(board: Scored) -> dict[str, Scores]:
    """Those of a round, by whose they are."""
    found = {
        "this student, mean over the nodes": board.student,
        "this student with each node's label shares": board.student_own_labels,
        "nodes' teachers, mean": board.teachers_own_labels or board.teachers,
        "this student, on test data of the server": board.server,
    }
    return {who: scores for who, scores in found.items() if scores}
