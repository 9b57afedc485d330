"""A pair tried before the first round on all that a run will ask of it, so that no training is lost to a surprise."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.distillation import PLACES, TEACHER, TeacherStudent, fit_heads, inputs_of, loss_weights, pair_loss
from fedkd_flwr.errors import ModelError
from fedkd_flwr.models.build import PairModels
from fedkd_flwr.models.export import export, load_classifier
from fedkd_flwr.models.hub import reading
from fedkd_flwr.models.lora import merged
from fedkd_flwr.models.model_card import About
from fedkd_flwr.models.readers import build_task
from fedkd_flwr.runtime.device import Device, seeded
from fedkd_flwr.tasks.base import Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_EXPORTED = 2**28
"""Parameters up to which a model's export is tried; that of a larger one would take long and fill the disk."""


def try_pair(config: RunConfig, labels: tuple[str, ...], models: PairModels, place: Device) -> None:
    """Let a pair read, learn, be exported and be read back, on two made-up examples.

    Args:
        config: the node's run config.
        labels: the node's labels.
        models: on the device of `place`; they are left as they were built.
        place: where and how precisely to compute.

    Raises:
        ModelError: one of the models cannot; says which, what it cannot and why.
    """
    task = build_task(config, labels)
    with seeded(config.seed, place.device):
        try:
            _Trial(config, models, task, place).run()
        finally:
            _restore(models)


class _Trial:
    """The steps of `try_pair`."""

    def __init__(self, config: RunConfig, models: PairModels, task: Task, place: Device) -> None:
        self._config, self._task, self._place = config, task, place
        self._pair, self._outputs = models.pair, models.outputs
        (batch,) = task.batches(task.made_up(), 2)
        self._batch = {name: tensor.to(place.device) for name, tensor in batch.items()}
        both = (
            ("teacher", config.model.teacher, models.teacher),
            ("student", config.student_checkpoint, models.student),
        )
        self._models = {role: (name, model) for role, name, model in both if model is not None}
        self._names = " and ".join(dict.fromkeys(name for name, _ in self._models.values()))
        self._adjustment: Tensor | None = None
        if config.adjusts_logits and task.link and "student" in models.outputs:
            self._adjustment = torch.linspace(-0.5, 0.5, models.outputs["student"].out_features).to(place.device)

    def run(self) -> None:
        for role, (name, model) in self._models.items():
            self._read(name, model.eval(), self._inputs(role))
        if self._config.fits_heads:
            with reading(self._names, "have heads fitted (train.linear-probe)"):
                fit_heads(
                    self._pair,
                    self._outputs,
                    [self._batch],
                    self._task,
                    self._place.device,
                    self._place.autocast,
                    self._adjustment,
                )
        with reading(self._names, "learn from two examples"):
            self._learn()
        self._pair.eval()
        for role, (name, model) in self._models.items():
            if sum(parameter.numel() for parameter in model.parameters()) <= _EXPORTED:
                self._export(role, name, model)

    def _inputs(self, role: str) -> dict[str, Tensor]:
        own = inputs_of(self._batch, TEACHER) if role == "teacher" else {}
        return {name: tensor for name, tensor in (own or inputs_of(self._batch)).items() if name != PLACES}

    def _read(self, name: str, model: "PreTrainedModel", inputs: Mapping[str, Tensor]) -> None:
        """The longest text, and the states that are to be matched."""
        length = self._config.model.max_length
        if "input_ids" in inputs:
            longest = inputs["input_ids"][:1, :1].expand(1, length)
            with reading(name, f"read as many as model.max-length ({length}) tokens"), self._computing():
                model.base_model(input_ids=longest, attention_mask=torch.ones_like(longest))
        hidden, attention = self._config.distillation.hidden > 0, self._config.distillation.attention > 0
        if not isinstance(self._pair, TeacherStudent) or not (hidden or attention):
            return
        with reading(name, "read two examples"), self._computing():
            output = model(**inputs, output_hidden_states=hidden, output_attentions=attention)
        layers, tokens = model.config.num_hidden_layers, inputs["input_ids"].shape[1] if "input_ids" in inputs else None
        if hidden and not _alike(output.hidden_states, layers + 1, tokens):
            raise ModelError(
                f"model {name!r} returns no hidden state for each layer and token, so none can be matched: set "
                "distillation.hidden to 0.0"
            )
        if attention and not _alike(output.attentions, layers, tokens, square=True):
            raise ModelError(
                f"model {name!r} returns no attention probabilities from token to token, so none can be matched: set "
                "distillation.attention to 0.0"
            )

    def _learn(self) -> None:
        self._pair.train()
        received = self._pair.received_student()
        with self._autocast():
            teacher, student = self._pair(self._batch, self._adjustment)
            heard = None if received is None else received(self._batch)
            mask, weights = self._batch.get("attention_mask"), loss_weights(self._config.distillation)
            loss = pair_loss(
                teacher,
                student,
                self._batch["labels"],
                mask,
                self._task,
                weights,
                self._config.distillation.loss,
                heard,
            )
        torch.autograd.backward(loss.total)

    def _export(self, role: str, name: str, model: "PreTrainedModel") -> None:
        """Write it as a run does, read it as anybody does, and compare what they say."""
        inputs = self._inputs(role)
        with reading(name, "say anything of two examples"), self._computing():
            expected = model(**inputs).logits.float()
        added = self._adjustment if role == "student" or self._pair.teacher_is_shared else None
        own = self._task.teacher_processor if role == "teacher" else None
        with TemporaryDirectory(prefix="fedkd-") as folder:
            with reading(name, "be exported"), merged(model):
                export(model, own or self._task.processor, folder, About(self._config, "student", 0), added)
            try:
                again = load_classifier(folder).to(self._place.device)
            except ModelError as error:
                reason = str(error).replace(folder, "its export")
                raise ModelError(f"model {name!r} cannot be read back from what it is exported as: {reason}") from None
        with reading(name, "say anything once it is read back from its export"), self._computing():
            found = again(**inputs).logits.float()
        middle, half = getattr(model, "units", (0.0 if added is None else added, 1.0))
        if not _close(found, half * expected + middle, 2e-4 if self._place.autocast is None else 5e-2):
            raise ModelError(
                f"model {name!r} does not say the same once it is exported and read back, so a run would be in vain: "
                "choose another family or other layers"
            )

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with torch.no_grad(), self._autocast():
            yield

    def _autocast(self) -> torch.autocast:
        place = self._place
        return torch.autocast(place.device.type, dtype=place.autocast, enabled=place.autocast is not None)


def _alike(states: Sequence[Tensor] | None, count: int, tokens: int | None, square: bool = False) -> bool:
    """Whether there are so many, of each token (of each two)."""
    states = states or ()
    if len(states) != count or any(state is None for state in states):
        return False
    tokens = states[0].shape[-2] if tokens is None else tokens
    shape = (tokens, tokens) if square else (tokens, states[0].shape[-1])
    return all(state.ndim == 3 + square and state.shape[-2:] == shape for state in states)


def _close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Whether logits agree but for this share of the largest."""
    finite = expected.isfinite()
    if found.shape != expected.shape or not torch.equal(finite, found.isfinite()):
        return False
    largest = float(expected[finite].abs().max())
    return float((found[finite] - expected[finite]).abs().max()) <= tolerance * largest + 1e-6


def _restore(models: PairModels) -> None:
    """The pair as it was built."""
    pair, initial = models.pair, {**models.initial_shared, **models.initial_private}
    with torch.no_grad():
        for name, parameter in pair.groups().everything.items():
            parameter.copy_(initial[name])
            parameter.grad = None
