"""The student is the teacher's own first layers with an exit head: one forward pass gives both outputs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import Parameter

from fedkd_flwr.distillation.losses import Outputs
from fedkd_flwr.distillation.pair import Pair, adjusted, depth, inputs_of, readable, trainable
from fedkd_flwr.distillation.parameter_groups import TEACHER

TOKENS = {
    "input_ids": torch.tensor([[1, 2, 3, 4], [4, 3, 2, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
}
"""A batch that every text model reads."""

Head = Callable[[Tensor, Mapping[str, Tensor]], Tensor]
"""What a model does above its encoder: logits of last hidden states [B, L, D] and the batch that they come from."""


class Nested(Pair):
    """A teacher whose lower layers are the student's, trained by both losses; above them its own layers and head.

    Of the upper layers, none are shared (FedKD), or the lowest, or all with the head (FedAvg with an exit).

    The models are Hugging Face classifiers of one family, and the layers of the student's encoder must return what
    a deeper model's do.
    """

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module,
        exit_head: Head,
        shared_layers: int = 0,
        probe: Mapping[str, Tensor] = TOKENS,
    ) -> None:
        """Tie the parameters of the student's encoder into the teacher; the teacher's own values are dropped.

        A norm that the encoder applies after its last layer belongs to each model's exit and is not tied.

        Args:
            teacher, student: of one family and width.
            exit_head: the student's head.
            shared_layers: how many of the teacher's layers are shared; no fewer than the student has. With all of
                them its head is, too.
            probe: a batch on which the student is compared with the teacher's lower layers.

        Raises:
            ValueError: the layers share weights, or the student's outputs are not those of the teacher's lower layers.
        """
        super().__init__()
        self.teacher = teacher
        self.student = student
        self._exit = depth(student)
        self._exit_head = exit_head
        below, above = student.base_model, teacher.base_model
        require_layers(above, below)  # type: ignore[arg-type]
        self.eval()
        self._norm = _norm_above(student, probe)
        _tie(below, above, self._norm)  # type: ignore[arg-type]
        self._find_norm(probe)
        self.train()
        upper = [layer for layers in layer_lists(above) for layer in layers[self._exit : shared_layers]]  # type: ignore[arg-type]
        self.teacher_is_shared = shared_layers == depth(teacher)
        sharable = [teacher] if self.teacher_is_shared else upper
        self._sharable = {id(parameter) for module in sharable for parameter in module.parameters()}

    def forward(
        self,
        batch: Mapping[str, Tensor],
        adjustment: Tensor | None = None,
        tied: Mapping[str, Tensor] | None = None,
    ) -> tuple[Outputs, Outputs]:
        """Outputs of (teacher, student) on the tensors of `batch`: logits only."""
        inputs = readable(inputs_of(batch), self.student)
        if tied and not self.training:
            teacher = functional_call(self.teacher, dict(tied), kwargs=inputs).logits
            student = self.student(**inputs).logits
        else:
            outputs = self.teacher(**inputs, output_hidden_states=True)
            teacher, student = outputs.logits, self._exit_head(self._exited(outputs.hidden_states), inputs)
        above = adjusted(Outputs(teacher), adjustment) if self.teacher_is_shared else Outputs(teacher)
        return above, adjusted(Outputs(student), adjustment)

    def sharable(self) -> dict[str, Parameter]:
        """The trainable parameters of trunk and exit head, and of the upper layers that can be shared."""
        student = trainable(self.student)
        known = {id(parameter) for parameter in student.values()}
        upper = {f"{TEACHER}{n}": p for n, p in trainable(self.teacher).items() if id(p) in self._sharable - known}
        return student | upper

    def _tied(self, shared: Mapping[str, Parameter], private: Mapping[str, Tensor]) -> dict[str, Parameter]:
        if not any(name.startswith(TEACHER) for name in private):
            return {}
        known = {id(parameter) for parameter in shared.values()}
        return {name: parameter for name, parameter in trainable(self.teacher).items() if id(parameter) in known}

    def _exited(self, states: Sequence[Tensor]) -> Tensor:
        """The student's last hidden states, of the teacher's hidden states."""
        hidden = states[self._exit]
        return hidden if self._norm is None else self._norm(hidden)

    @torch.no_grad()
    def _find_norm(self, probe: Mapping[str, Tensor]) -> None:
        """Find what comes after the last layer; a norm that the recorded hidden states have seen is not applied."""
        for norm in dict.fromkeys((self._norm, None)):
            self._norm = norm
            nested, alone = self(probe)[1].logits, self.student(**probe).logits
            if torch.allclose(nested, alone, rtol=1e-4, atol=1e-5):
                return
        raise ValueError("the first layers of this teacher, as they are, do not make a student")


def layer_lists(encoder: nn.Module) -> list[nn.ModuleList]:
    """The outermost lists of modules that are as long as an encoder is deep: entry i of each is of layer i.

    None where layers share their weights.
    """
    layers = depth(encoder)

    def below(module: nn.Module) -> Iterator[nn.ModuleList]:
        for child in module.children():
            if isinstance(child, nn.ModuleList) and len(child) == layers:
                yield child
            else:
                yield from below(child)

    return list(below(encoder))


def require_layers(teacher: nn.Module, student: nn.Module) -> None:
    """Whether encoders, of one family, have layers that can be tied one by one.

    Raises:
        ValueError: they have not.
    """
    if layer_lists(teacher) and layer_lists(student):
        return
    sizes = {sum(parameter.numel() for parameter in encoder.parameters()) for encoder in (teacher, student)}
    if len(sizes) == 1 and depth(teacher) != depth(student):
        raise ValueError("its layers share weights")
    raise ValueError("its layers are not one list, of which the first could be a student")


@torch.no_grad()
def _norm_above(model: nn.Module, probe: Mapping[str, Tensor]) -> nn.Module | None:
    """The module that makes an encoder's last hidden states of what its last layer returns; None: nothing does."""
    encoder: nn.Module = model.base_model  # type: ignore[assignment]
    last = {layers[-1] for layers in layer_lists(encoder)}
    calls: list[tuple[nn.Module, tuple[Any, ...], Any]] = []
    hooks = [m.register_forward_hook(lambda *call: calls.append(call)) for m in encoder.modules()]
    try:
        model(**probe)
    finally:
        for hook in hooks:
            hook.remove()
    states = next(_first(output) for module, _, output in calls if module is encoder)
    returned = [_first(output) for module, _, output in calls if module in last]
    if not returned or _equal(returned[-1], states):
        return None
    norms = (m for m, given, output in calls if given and _equal(given[0], returned[-1]) and _equal(output, states))
    return next(norms, None)


def _first(output: Any) -> Any:
    return output if isinstance(output, Tensor) else output[0]


def _equal(one: Any, other: Any) -> bool:
    return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)


def _tie(student: nn.Module, teacher: nn.Module, norm: nn.Module | None) -> None:
    above = set() if norm is None else {id(parameter) for parameter in norm.parameters()}
    for name, parameter in student.named_parameters(remove_duplicate=False):
        if id(parameter) not in above:
            owner, _, leaf = name.rpartition(".")
            setattr(teacher.get_submodule(owner), leaf, parameter)
