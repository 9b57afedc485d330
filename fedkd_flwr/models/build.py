"""From a run config to the models of a pair."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fedkd_flwr import tensors
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.distillation import (
    Nested,
    Pair,
    Single,
    TeacherStudent,
    batch_norms,
    trainable,
)
from fedkd_flwr.errors import ModelError
from fedkd_flwr.models.hub import cause, depth, reading
from fedkd_flwr.models.image import build_image_classifier, image_head, noise
from fedkd_flwr.models.lora import add_adapters, learning_rate_factor
from fedkd_flwr.models.text import build_classifier, head, head_parameter_names, output_layer, probe
from fedkd_flwr.tasks.numerics import scale

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SAMPLE = 4096
"""Numbers of a frozen tensor by which a teacher is known again."""


@dataclass(frozen=True)
class PairModels:
    """A pair and what is known of it before any training.

    Attributes:
        pair: what is trained.
        teacher: the model that a node keeps; None: all that it trains is a student.
        student: the model that it shares; None: there is none.
        outputs: the linear layers that make logits, of "teacher" and "student", where there are any.
        heads: names of the sharable parameters outside the encoders.
        teacher_bytes: of sending a teacher once, as float32, without its embeddings.
        learning_rates: by the names of `pair.groups().trainable`.
        initial_shared, initial_private: the shared and private tensors at the start, on the CPU.
        frozen_digest: SHA-256 of the student's frozen tensors; "": there is no student.
        teacher_digest: of a sample of the teacher's, which differs for another checkpoint; "": there is no teacher.
    """

    pair: Pair
    teacher: "PreTrainedModel | None"
    student: "PreTrainedModel | None"
    outputs: Mapping[str, nn.Linear]
    heads: frozenset[str]
    teacher_bytes: int
    learning_rates: Mapping[str, float]
    initial_shared: Mapping[str, Tensor]
    initial_private: Mapping[str, Tensor]
    frozen_digest: str
    teacher_digest: str

    def new_outputs(self) -> dict[str, nn.Linear]:
        """Those of `outputs` that are as they were at the start."""
        initial = {**self.initial_shared, **self.initial_private}
        names = {id(tensor): name for name, tensor in self.pair.groups().everything.items()}
        return {
            model: layer
            for model, layer in self.outputs.items()
            if torch.equal(layer.weight.detach().cpu(), initial[names[id(layer.weight)]])
        }


def build_student(config: RunConfig, labels: Sequence[str]) -> "PreTrainedModel":
    """The initial student: the same on every machine that has the checkpoint and the seed."""
    layers = None if config.parts.whole else config.model.student_layers
    return _build(config, config.student_checkpoint, layers, labels)


def build_teacher(config: RunConfig, labels: Sequence[str]) -> "PreTrainedModel":
    """The initial teacher."""
    return _build(config, config.model.teacher, None, labels)


def build_global(
    config: RunConfig, labels: Sequence[str], student: "PreTrainedModel", shared_head: bool
) -> Single | Nested:
    """What the server holds of a pair: the student, under a teacher only where layers of that are shared, too."""
    pair: Single | Nested
    if config.parts.trains == {"teacher", "student"} and config.model.shared_layers > config.model.student_layers:
        teacher = build_teacher(config, labels)
        pair = _nested(config, teacher, student)
        heads = _heads(pair, teacher, student)
    else:
        _adapt_alone(config, student)
        pair = Single(student, shared=True)
        heads = _heads(pair, student)
    pair.withhold(_withheld(pair, student, () if shared_head else heads))
    return pair


def build_pair(
    config: RunConfig, labels: tuple[str, ...], shared_head: bool = True, private_seed: int | None = None
) -> PairModels:
    """Teacher and student of a node, with their initial weights.

    Args:
        config: of the run.
        labels: of the node.
        shared_head: whether heads are shared as the encoders are that they are on, or private.
        private_seed: of the new private weights; None: the run's.
    """
    own = config if private_seed is None else config.model_copy(update={"seed": private_seed})
    trains, whole = config.parts.trains, shared_head and _all_layers_shared(config)
    teacher = build_teacher(config if whole else own, labels) if "teacher" in trains else None
    student = build_student(config, labels) if "student" in trains else None
    if student is not None and own is not config and not shared_head:
        _take_heads(student, build_student(own, labels))
    pair = _paired(config, teacher, student, own.seed)
    teacher_bytes = _teacher_bytes(config, labels, teacher, student)
    if config.model.lora_rank and teacher is not None:
        add_adapters(teacher, pair.unsharable().values(), config.model.lora_rank, own.seed)
    if student is not None:
        _adapt_alone(config, student)
    models = {name: m for name, m in (("teacher", teacher), ("student", student)) if m is not None}
    heads = _heads(pair, *models.values())
    pair.withhold(_withheld(pair, student, () if shared_head else heads))
    layers = {name: output_layer(model) for name, model in models.items()}
    groups = pair.groups()
    return PairModels(
        pair=pair,
        teacher=teacher,
        student=student,
        outputs={name: layer for name, layer in layers.items() if layer is not None},
        heads=heads,
        teacher_bytes=teacher_bytes,
        learning_rates=_learning_rates(config, pair, teacher, student),
        initial_shared=tensors.snapshot(groups.shared),
        initial_private=tensors.snapshot(groups.private),
        frozen_digest="" if student is None else frozen_digest(student),
        teacher_digest="" if teacher is None else _sampled_digest(teacher),
    )


def _adapt_alone(config: RunConfig, student: "PreTrainedModel") -> None:
    """Put adapters, the same everywhere, on a student that is all that a method trains."""
    if config.model.lora_rank and "teacher" not in config.parts.trains:
        add_adapters(student, trainable(student).values(), config.model.lora_rank, config.seed)


def _all_layers_shared(config: RunConfig) -> bool:
    """Whether all of the teacher's layers are shared, and with them its head."""
    return bool(config.model.shared_layers) and config.model.shared_layers == depth(config.model.teacher)


def _paired(config: RunConfig, teacher: "PreTrainedModel | None", student: "PreTrainedModel | None", seed: int) -> Pair:
    """The models that a method trains, as one module; the seed is that of what maps one's states to the other's."""
    if student is None:
        assert teacher is not None, "a method trains a model"
        return Single(teacher, shared=False)
    if teacher is None:
        return Single(student, shared=True)
    if config.model.architecture == "nested":
        return _nested(config, teacher, student)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        terms = config.distillation
        return TeacherStudent(
            teacher,
            student,
            hidden=terms.hidden > 0,
            attention=terms.attention > 0,
            # Of tagged words, and of news, the examples are not what a label is of: measured, spans are lost.
            hears_received=terms.loss == "adaptive" and config.task_spec.labels in ("one", "several", "number"),
        )


def _teacher_bytes(
    config: RunConfig,
    labels: Sequence[str],
    teacher: "PreTrainedModel | None",
    student: "PreTrainedModel | None",
) -> int:
    """Bytes of a teacher's trainable tensors as float32, also where a method trains none.

    A student that is the whole checkpoint is as large; the teacher of a smaller one is read for its size only.
    """
    model = teacher or (student if config.parts.whole else None) or build_teacher(config, labels)
    return tensors.dense_bytes(trainable(model))


def _build(config: RunConfig, reference: str, num_layers: int | None, labels: Sequence[str]) -> "PreTrainedModel":
    with reading(reference, "be built"):
        return _built(config, reference, num_layers, labels)


def _built(config: RunConfig, reference: str, num_layers: int | None, labels: Sequence[str]) -> "PreTrainedModel":
    spec = config.task_spec
    if spec.inputs == "images":
        return build_image_classifier(
            reference,
            num_layers=num_layers,
            labels=labels,
            attentions=config.distillation.attention > 0,
            seed=config.seed,
        )
    model = build_classifier(
        reference,
        num_layers=num_layers,
        labels=(config.data.label_column,) if spec.labels == "number" else labels,
        pooling=spec.pooling or config.model.pooling,
        attentions=config.distillation.attention > 0,
        seed=config.seed,
        problem_type=spec.problem_type,
    )
    if spec.labels == "number":
        model.units = scale(tuple(labels))
    return model


def _head_ids(*models: "PreTrainedModel") -> set[int]:
    return {id(model.get_parameter(name)) for model in models for name in head_parameter_names(model)}


def _heads(pair: Pair, *models: "PreTrainedModel") -> frozenset[str]:
    heads = _head_ids(*models)
    return frozenset(name for name, parameter in pair.sharable().items() if id(parameter) in heads)


@torch.no_grad()
def _take_heads(model: "PreTrainedModel", other: "PreTrainedModel") -> None:
    """Give a model the head of one that is like it but for its seed."""
    for name in head_parameter_names(model):
        model.get_parameter(name).copy_(other.get_parameter(name))


def _withheld(pair: Pair, student: "PreTrainedModel | None", heads: Collection[str]) -> frozenset[str]:
    """Names of sharable parameters that are private: these heads and, as in FedBN, the student's batch normalisation.

    (Li et al., ICLR 2021: the scales and shifts of its layers go with the statistics, which are each node's own.)
    """
    layers = {} if student is None else batch_norms(student)
    norms = {id(parameter) for layer in layers.values() for parameter in layer.parameters()}
    return frozenset(heads) | {name for name, parameter in pair.sharable().items() if id(parameter) in norms}


def _learning_rates(
    config: RunConfig, pair: Pair, teacher: "PreTrainedModel | None", student: "PreTrainedModel | None"
) -> dict[str, float]:
    """The teacher's rate for what is of no student, the student's for the rest; heads and adapters learn faster."""
    heads = _head_ids(*(model for model in (teacher, student) if model is not None))
    of_student, of_teacher = (
        {id(parameter) for parameter in model.parameters()} if model is not None else set()
        for model in (student, teacher)
    )
    teachers = of_student if config.parts.whole else of_teacher - of_student
    return {
        name: (config.train.teacher_learning_rate if id(parameter) in teachers else config.train.learning_rate)
        * (config.train.head_learning_rate_factor if id(parameter) in heads else learning_rate_factor(name))
        for name, parameter in pair.groups().trainable.items()
    }


def _nested(config: RunConfig, teacher: "PreTrainedModel", student: "PreTrainedModel") -> Nested:
    images = config.task_spec.inputs == "images"
    exit_head, batch = (image_head(student), noise(student)) if images else (head(student), probe(student))
    try:
        return Nested(teacher, student, exit_head, config.model.shared_layers, batch)
    except ValueError as error:
        raise ModelError(f"teacher {config.model.teacher!r}: {error}: set model.architecture to 'separate'") from None
    except Exception as error:  # whatever a family of models raises
        raise ModelError(
            f"teacher {config.model.teacher!r}: its first layers cannot be tried as a student ({cause(error)}): "
            "set model.architecture to 'separate'"
        ) from None


def frozen_digest(student: "PreTrainedModel") -> str:
    """SHA-256 of the frozen tensors of a student: they are never sent, so they must be the same everywhere."""
    return tensors.digest(_frozen(student))


def _sampled_digest(model: "PreTrainedModel") -> str:
    """SHA-256 of numbers evenly taken from each frozen tensor, however large the model is."""
    return tensors.digest({n: p.flatten()[:: max(1, p.numel() // _SAMPLE)] for n, p in _frozen(model).items()})


def _frozen(model: "PreTrainedModel") -> dict[str, Tensor]:
    learning = trainable(model)
    return {name: parameter for name, parameter in model.named_parameters() if name not in learning}
