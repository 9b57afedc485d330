"""The student is the teacher's own first layers with an exit head: one forward pass gives both outputs."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import Parameter

from fedkd_flwr.distillation.losses import Outputs
from fedkd_flwr.distillation.pair import TEACHER, Pair, depth, inputs_of, readable, trainable

TOKENS = {
    "input_ids": torch.tensor([[1, 2, 3, 4], [4, 3, 2, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
}
"""A batch that every text model reads."""

Head = Callable[[Tensor, Mapping[str, Tensor]], Tensor]
"""What a model does above its encoder: logits of last hidden states [B, L, D] and the batch that they come from."""


class Nested(Pair):
    """A teacher whose lower layers are the student's, trained by both losses; above them its own layers and head.

    Of the upper layers, none travel (FedKD), or the lowest, or all with the head (FedAvg with an exit).

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
            shared_layers: how many of the teacher's layers travel; no fewer than the student has. With all of
                them its head travels, too.
            probe: a batch on which the student is compared with the teacher's lower layers.

        Raises:
            ValueError: the student's outputs are not those of the teacher's lower layers (a family that
                normalises only after its last layer, say).
        """
        super().__init__()
        self.teacher = teacher
        self.student = student
        self._exit = depth(student)
        self._exit_head = exit_head
        _tie(student.base_model, teacher.base_model)  # type: ignore[arg-type]
        self._check(probe)
        upper = _layers(teacher.base_model)[self._exit : shared_layers]  # type: ignore[arg-type]
        self.whole = shared_layers == depth(teacher)
        federated = teacher if self.whole else upper
        self._federated = {id(parameter) for parameter in federated.parameters()}

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Outputs, Outputs]:
        """Outputs of (teacher, student) on the tensors of `batch`: logits only."""
        inputs = readable(inputs_of(batch), self.student)
        if self.own and not self.training:
            teacher = functional_call(self.teacher, dict(self.own), kwargs=inputs).logits
            student = self.student(**inputs).logits
        else:
            outputs = self.teacher(**inputs, output_hidden_states=True)
            teacher, student = outputs.logits, self._exit_head(outputs.hidden_states[self._exit], inputs)
        outputs = Outputs(teacher)
        return self.adjusted(outputs) if self.whole else outputs, self.adjusted(Outputs(student))

    def federated(self) -> dict[str, Parameter]:
        """The trainable parameters of trunk and exit head, and of the upper layers that can travel."""
        student = trainable(self.student)
        known = {id(parameter) for parameter in student.values()}
        upper = {f"{TEACHER}{n}": p for n, p in trainable(self.teacher).items() if id(p) in self._federated - known}
        return student | upper

    def lent(self) -> dict[str, Parameter]:
        """The parameters of the teacher that travel; none where all of it does."""
        if not any(name.startswith(TEACHER) for name in self.private()):
            return {}
        shared = {id(parameter) for parameter in self.shared().values()}
        return {name: parameter for name, parameter in trainable(self.teacher).items() if id(parameter) in shared}

    def local(self) -> dict[str, Parameter]:
        """The trainable parameters of the teacher's other layers and head."""
        federated = {id(parameter) for parameter in self.federated().values()}
        return {f"{TEACHER}{name}": p for name, p in trainable(self.teacher).items() if id(p) not in federated}

    @torch.no_grad()
    def _check(self, probe: Mapping[str, Tensor]) -> None:
        was_training = self.training
        self.eval()
        nested, alone = self(probe)[1].logits, self.student(**probe).logits
        if not torch.allclose(nested, alone, rtol=1e-4, atol=1e-5):
            raise ValueError("the first layers of this teacher, as they are, do not make a student")
        self.train(was_training)


def _layers(encoder: nn.Module) -> nn.ModuleList:
    lists = (module for module in encoder.modules() if isinstance(module, nn.ModuleList))
    return next(layers for layers in lists if len(layers) == encoder.config.num_hidden_layers)  # type: ignore[union-attr]


def _norms_above(encoder: nn.Module) -> set[str]:
    """Names of the norms that an encoder applies after its layers."""
    layers, children = _layers(encoder), list(encoder.named_children())
    last = next(i for i, (_, child) in enumerate(children) if any(module is layers for module in child.modules()))
    return {name for name, child in children[last + 1 :] if isinstance(child, nn.LayerNorm)}


def _tie(student: nn.Module, teacher: nn.Module) -> None:
    above = _norms_above(student)
    for name, parameter in student.named_parameters():
        owner, _, leaf = name.rpartition(".")
        if owner in above:
            continue
        setattr(teacher.get_submodule(owner), leaf, parameter)
