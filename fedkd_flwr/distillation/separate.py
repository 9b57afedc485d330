"""A teacher and a student that are two models, of any families: what they have in common is what they say."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from fedkd_flwr.distillation.losses import Outputs
from fedkd_flwr.distillation.pair import PLACES, Pair, adjusted, depth, inputs_of, readable, trainable
from fedkd_flwr.distillation.parameter_groups import TEACHER

if TYPE_CHECKING:
    from transformers.utils import ModelOutput


def layer_map(teacher_depth: int, student_depth: int) -> tuple[int, ...]:
    """The teacher layer (1-based) that each student layer 1..S is matched with.

    Student layer j meets teacher layer j * T / S, last to last; where S does not divide T, the nearest
    (a half goes up).

    Raises:
        ValueError: the student is deeper than the teacher.
    """
    if not 1 <= student_depth <= teacher_depth:
        raise ValueError(f"a student of {student_depth} layers has no teacher of {teacher_depth}")
    return tuple((2 * j * teacher_depth + student_depth) // (2 * student_depth) for j in range(1, student_depth + 1))


class TeacherStudent(Pair):
    """Two separate models, of any widths and depths, matched through a learnable map W per matched layer.

    The models take the batch as keyword arguments and return Hugging Face outputs (`logits`,
    `hidden_states` with the embedding output first, `attentions`). W is [D_teacher, D_student], the identity
    at the start where the widths agree, and is private. Where the teacher reads tokens of its own, the means
    over the tokens are matched, and of a task on tokens its logits are taken at `teacher.places` ([B, L], the teacher's
    token for each of the student's).
    """

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module,
        hidden: bool = True,
        attention: bool = False,
        hears_received: bool = False,
    ) -> None:
        """Put two models side by side.

        Args:
            teacher: the private model.
            student: the shared one, no deeper than the teacher where layers are matched.
            hidden: hidden states are matched.
            attention: attention probabilities are matched.
            hears_received: the teacher hears the student as the client received it (see `received_student`). While a
                student trains at one client it comes to fit that client's labels as the teacher does; what it was
                before is the mean over all clients.
        """
        super().__init__()
        self.teacher = teacher
        self.student = student
        self._hears_received = hears_received
        self._hidden = hidden
        self._attention = attention
        self._layers = layer_map(depth(teacher), depth(student)) if hidden or attention else ()
        self.projections = nn.ModuleList(_projection(_width(student), _width(teacher)) for _ in self._layers if hidden)

    def forward(
        self,
        batch: Mapping[str, Tensor],
        adjustment: Tensor | None = None,
        tied: Mapping[str, Tensor] | None = None,
    ) -> tuple[Outputs, Outputs]:
        """Outputs of (teacher, student) on the tensors of `batch`, their matched layers side by side.

        The teacher's dropout draws from a stream of its own: the student trains as it would alone.
        """
        inputs, others = inputs_of(batch), inputs_of(batch, TEACHER)
        places = others.pop(PLACES, None)
        compared = self._hears_received and self.training
        wanted = {"output_hidden_states": self._hidden, "output_attentions": self._attention}
        student = self.student(**readable(inputs, self.student), **wanted)
        with _another_stream(student.logits.device):
            wanted |= {"output_hidden_states": self._hidden or compared}
            teacher = self.teacher(**readable(others or inputs, self.teacher), **wanted)
        logits = teacher.logits
        if places is not None:
            logits = at_places(logits, places)
        own_mask, mask = (others["attention_mask"], inputs["attention_mask"]) if others else (None, None)
        of_student = self._matched(student.hidden_states, range(1, len(self._layers) + 1), mask)
        return (
            Outputs(
                logits,
                self._matched(teacher.hidden_states, self._layers, own_mask),
                tuple(teacher.attentions[layer - 1] for layer in self._layers) if self._attention else (),
                features=_features(teacher, others or inputs) if compared else None,
            ),
            adjusted(
                Outputs(
                    student.logits,
                    tuple(project(h) for project, h in zip(self.projections, of_student, strict=True)),
                    tuple(student.attentions) if self._attention else (),
                ),
                adjustment,
            ),
        )

    def received_student(self) -> Callable[[Mapping[str, Tensor]], Outputs] | None:
        """See `Pair.received_student`; what of the student is frozen is not copied."""
        if not self._hears_received:
            return None
        frozen = {id(p): p for p in self.student.parameters() if not p.requires_grad}
        received: nn.Module = deepcopy(self.student, memo=frozen).eval()

        @torch.no_grad()
        def say(batch: Mapping[str, Tensor]) -> Outputs:
            inputs = readable(inputs_of(batch), received)
            said = received(**inputs, output_hidden_states=True)
            return Outputs(said.logits, features=_features(said, inputs))

        return say

    def _matched(self, states: Sequence[Tensor], layers: Iterable[int], mask: Tensor | None) -> tuple[Tensor, ...]:
        """Hidden states of some layers, each [B, L, D]; under a mask [B, L] their means over the tokens, [B, D]."""
        if not self._hidden:
            return ()
        return tuple(states[layer] if mask is None else _mean(states[layer], mask) for layer in layers)

    def sharable(self) -> dict[str, Parameter]:
        """The student's trainable parameters, under the student's own names."""
        return trainable(self.student)


def at_places(values: Tensor, places: Tensor) -> Tensor:
    """Of values [B, M, D] of tokens those at places [B, L], as [B, L, D]."""
    return values.gather(1, places[:, :, None].expand(-1, -1, values.shape[-1]))


@contextmanager
def _another_stream(device: torch.device) -> Iterator[None]:
    """Random numbers inside do not move the generator outside."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(torch.randint(2**62, ())))
        yield


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean of [B, L, D] over the tokens under a mask [B, L]."""
    weight = mask[:, :, None].float()
    return (hidden.float() * weight).sum(1) / weight.sum(1).clamp_min(1)


def _features(said: "ModelOutput", inputs: Mapping[str, Tensor]) -> Tensor | None:
    """Means of a model's last hidden states over tokens or places, [B, D]; None: it returns none.

    States are [B, L, D], or [B, D, height, width] of a convolutional network.
    """
    if not said.hidden_states:
        return None
    last: Tensor = said.hidden_states[-1]
    if last.ndim == 4:
        return last.float().mean((2, 3))
    mask = inputs.get("attention_mask")
    return last.float().mean(1) if mask is None else _mean(last, mask)


def _width(model: nn.Module) -> int:
    return int(model.config.hidden_size)  # type: ignore[union-attr, arg-type]


def _projection(student_width: int, teacher_width: int) -> nn.Linear:
    projection = nn.Linear(student_width, teacher_width, bias=False)
    with torch.no_grad():
        if student_width == teacher_width:
            nn.init.eye_(projection.weight)
        else:
            nn.init.orthogonal_(projection.weight)
    return projection
