"""A private teacher and a shared student as one module: which layers meet, which parameters are shared."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from inspect import signature

from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.modules.batchnorm import _BatchNorm

from fedkd_flwr.distillation.losses import Outputs
from fedkd_flwr.distillation.parameter_groups import STUDENT, TEACHER, ParameterGroups

PLACES = "places"
"""Of a teacher's inputs, the one that it does not read: the token for each of the student's (see `at_places`)."""

SEGMENTS = "token_type_ids"
"""Of inputs, which text of a pair each token is of: for models that tell segments apart."""


class Pair(nn.Module, ABC):
    """A teacher and its student, or one of them, however they are built; a subclass names them so."""

    _withheld: frozenset[str] = frozenset()
    teacher_is_shared: bool = False
    """Whether the teacher is shared with all its layers and its head."""

    @abstractmethod
    def forward(
        self,
        batch: Mapping[str, Tensor],
        adjustment: Tensor | None = None,
        tied: Mapping[str, Tensor] | None = None,
    ) -> tuple[Outputs | None, Outputs | None]:
        """Outputs of (teacher, student) on a batch; None where there is no such model.

        Args:
            batch: keyword arguments of the models, and `labels`; `teacher.NAME` are for a teacher that reads other
                tokens than the student.
            adjustment: logits, [classes], that are added to what each shared head returns (see
                `tasks.label_priors`); None: nothing is.
            tied: values that the teacher uses in place of its tied parameters, by their names, out of training; None:
                it uses the shared ones.
        """

    @abstractmethod
    def sharable(self) -> dict[str, Parameter]:
        """The trainable parameters that can be shared: the student's, under its own names, and `teacher.NAME`."""

    def unsharable(self) -> dict[str, Parameter]:
        """All other trainable parameters, by the names that they have in this module."""
        sharable = {id(parameter) for parameter in self.sharable().values()}
        return {name: parameter for name, parameter in trainable(self).items() if id(parameter) not in sharable}

    def withhold(self, names: Collection[str]) -> None:
        """Keep these of the sharable parameters private (heads, where labels differ)."""
        self._withheld = frozenset(names)

    def received_student(self) -> Callable[[Mapping[str, Tensor]], Outputs] | None:
        """What the student says of a batch now and will say however both train on, for a teacher to hear.

        Returns:
            Outputs with logits that are not adjusted, and features; None: the teacher hears the student that trains.
        """
        return None

    def groups(self) -> ParameterGroups:
        """The shared and the private parameters, as they are now."""
        sharable = self.sharable()
        withheld = {name: parameter for name, parameter in sharable.items() if name in self._withheld}
        shared = {name: parameter for name, parameter in sharable.items() if name not in self._withheld}
        renamed = {n if n.startswith(TEACHER) else f"{STUDENT}{n}": p for n, p in withheld.items()}
        private = {**self.unsharable(), **renamed, **self._statistics()}
        return ParameterGroups(shared, private, self._tied(shared, private))

    def _tied(self, shared: Mapping[str, Parameter], private: Mapping[str, Tensor]) -> dict[str, Parameter]:
        """See `ParameterGroups`; none where teacher and student have no parameters in common."""
        return {}

    def _statistics(self) -> dict[str, Tensor]:
        """The buffers of batch normalisation: no parameters, training sets them to what a client's data are like."""
        return {
            f"{name}.{leaf}": buffer
            for name, layer in batch_norms(self).items()
            for leaf, buffer in layer.named_buffers()
        }


def adjusted(outputs: Outputs, adjustment: Tensor | None) -> Outputs:
    """Outputs of a model with a shared head, with logits [..., classes] as they hold at this client."""
    if adjustment is None:
        return outputs
    return replace(outputs, logits=outputs.logits + adjustment, plain=outputs.logits)


class Single(Pair):
    """One model that learns alone: a student, all of which is shared, or a teacher, all of which is private."""

    def __init__(self, model: nn.Module, shared: bool) -> None:
        super().__init__()
        self.teacher: nn.Module | None = None if shared else model
        self.student: nn.Module | None = model if shared else None

    def forward(
        self,
        batch: Mapping[str, Tensor],
        adjustment: Tensor | None = None,
        tied: Mapping[str, Tensor] | None = None,
    ) -> tuple[Outputs | None, Outputs | None]:
        """Its outputs in the place of the model that it is."""
        inputs = inputs_of(batch)
        teacher, student = (
            None if model is None else Outputs(model(**readable(inputs, model)).logits)
            for model in (self.teacher, self.student)
        )
        return teacher, student and adjusted(student, adjustment)

    def sharable(self) -> dict[str, Parameter]:
        """All of a student's trainable parameters."""
        return {} if self.student is None else trainable(self.student)


def inputs_of(batch: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """What of a batch is for a model to read: without labels, and without or with only what begins with `prefix`."""
    if prefix:
        return {name.removeprefix(prefix): tensor for name, tensor in batch.items() if name.startswith(prefix)}
    return {name: tensor for name, tensor in batch.items() if name != "labels" and not name.startswith(TEACHER)}


def readable(inputs: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The inputs without segments where a model takes none, or has an embedding of one only."""
    if SEGMENTS not in inputs:
        return inputs
    taken = signature(model.base_model.forward).parameters  # type: ignore[union-attr]
    if SEGMENTS in taken and getattr(model.config, "type_vocab_size", 2) > 1:
        return inputs
    return {name: tensor for name, tensor in inputs.items() if name != SEGMENTS}


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """The layers of batch normalisation, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}


def trainable(model: nn.Module) -> dict[str, Parameter]:
    """The parameters that learn, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def depth(model: nn.Module) -> int:
    """Number of layers."""
    return int(model.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
