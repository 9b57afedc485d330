"""The losses of FedKD (Wu et al., Nature Communications 13:2032, 2022), Eqs 1-7, one function each.

Shapes: B examples, C outputs, L tokens, D hidden width, A attention heads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

Mode = Literal["adaptive", "stable", "paper"]

SIMILARITY = 10.0
"""Weight of the distance of similarities beside KL of weight 1; 50 was worse (docs/results/few-labels.md)."""

MIN_DENOMINATOR = 1.0
"""Floor of Z, but not in `paper` mode: distillation is turned down while models know little, never up."""


class TaskLosses(Protocol):
    """The two losses that depend on the task."""

    def task_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Eqs 1 and 2: loss against the gold labels, mean over the batch, a scalar."""

    def divergence(self, target_logits: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """How far `logits` are from `target_logits` (softmax tasks: KL(target || output)), a scalar.

        The labels only say which outputs count.
        """


@dataclass(frozen=True)
class Weights:
    """Weight of each distillation term. The paper's are all 1.

    Attributes:
        teacher_kl, student_kl: of the KL divergence from which that model learns (Eqs 3 and 4).
        hidden, attention: of the two parts of Eq 5, from which both models learn.
    """

    teacher_kl: float = 1.0
    student_kl: float = 1.0
    hidden: float = 1.0
    attention: float = 1.0

    def scaled(self, factor: float) -> "Weights":
        """Each of them times a factor."""
        return Weights(*(factor * weight for weight in astuple(self)))


@dataclass(frozen=True)
class Outputs:
    """What one model says of a batch.

    logits: [B, C], or [B, L, C] of a task on tokens.  hidden: the matched layers, each [B, L, D], or [B, D] of models
    that read different tokens, a student's already mapped by W to the teacher's width.  attentions: the matched layers,
    each [B, A, L, L].  plain: the logits as they are without what is added at this node; None where nothing is.
    features: what the model makes of each example below its head, [B, D] of any D; None: nobody asked.
    """

    logits: Tensor
    hidden: tuple[Tensor, ...] = ()
    attentions: tuple[Tensor, ...] = ()
    plain: Tensor | None = None
    features: Tensor | None = None

    def detach(self) -> "Outputs":
        """The same outputs as constants."""
        return Outputs(
            self.logits.detach(),
            tuple(h.detach() for h in self.hidden),
            tuple(a.detach() for a in self.attentions),
            features=None if self.features is None else self.features.detach(),
        )


@dataclass(frozen=True)
class PairLoss:
    """Scalars of one batch: `total` is the one to differentiate, `tasks` are Eqs 1 and 2 of the models there are."""

    total: Tensor
    tasks: Mapping[str, Tensor]


def denominator(own: Tensor, other: Tensor, mode: Mode) -> Tensor:
    """Z = L_t + L_s, by which Eqs 3-5 divide, as one of the two models sees it.

    `paper` leaves the model's own loss live, so that the gradient of its task has the coefficient
    1 - (KL + M) / Z^2, which turns negative where KL + M > Z^2. The other modes treat Z as a constant of at
    least `MIN_DENOMINATOR`: the coefficient is 1.
    """
    if mode == "paper":
        return own + other.detach()
    return (own + other).detach().clamp_min(MIN_DENOMINATOR)


def hidden_loss(target: Sequence[Tensor], hidden: Sequence[Tensor], mask: Tensor | None) -> Tensor:
    """First part of Eq 5: MSE of matched hidden states, mean over layers, real tokens and width.

    target, hidden: equally many [B, L, D], or means over tokens, [B, D], which no mask concerns.
    mask: [B, L], 1 on real tokens; None: all are real.
    """
    tokens = mask is not None and target[0].ndim == 3
    return _mean_over_layers(target, hidden, mask[:, :, None] if tokens else None)  # type: ignore[index]


def attention_loss(target: Sequence[Tensor], attentions: Sequence[Tensor], mask: Tensor | None) -> Tensor:
    """Second part of Eq 5: MSE of matched attention probabilities between real tokens.

    target, attentions: equally many [B, A, L, L]; where the numbers of heads differ, heads are averaged.
    mask: [B, L], 1 on real tokens; None: all are real.
    """
    pairs = [
        (t, a) if t.shape[1] == a.shape[1] else (t.mean(1, keepdim=True), a.mean(1, keepdim=True))
        for t, a in zip(target, attentions, strict=True)
    ]
    both = None if mask is None else mask[:, None, :, None] * mask[:, None, None, :]
    return _mean_over_layers([t for t, _ in pairs], [a for _, a in pairs], both)


def similarity_loss(target: Tensor, features: Tensor) -> Tensor:
    """How differently two models find examples alike: MSE of the correlations of their features.

    (Similarity-preserving distillation: Tung and Mori, ICCV 2019.) Of examples whose labels both models have fitted,
    logits say nothing but the labels. Which of them are alike is what the target has learnt elsewhere. Models of any
    width, family and tokenizer can be compared.

    Args:
        target, features: [B, D] of the same examples, D of each model's own.

    Returns:
        A scalar of float32: the mean over pairs of examples, of which three are needed for there to be a difference.
    """
    one, other = (_correlations(x) for x in (target, features))
    pairs = len(one) * (len(one) - 1)
    return (one - other).square().sum() / max(1, pairs)  # on the diagonals both are 1


def distillation_loss(
    own: Outputs,
    target: Outputs,
    z: Tensor,
    labels: Tensor,
    mask: Tensor | None,
    losses: TaskLosses,
    kl: float,
    weights: Weights,
) -> Tensor:
    """Eqs 3 or 4 plus Eq 5 for the model with outputs `own`: (KL + MSE_hidden + MSE_attention) / Z, weighted.

    Where both have features, their distance of similarities goes with KL.
    """
    total = torch.zeros((), device=own.logits.device)
    if kl > 0:
        total = total + kl * losses.divergence(target.logits, own.logits, labels)
    if kl > 0 and own.features is not None and target.features is not None:
        total = total + kl * SIMILARITY * similarity_loss(target.features, own.features)
    if weights.hidden > 0 and own.hidden:
        total = total + weights.hidden * hidden_loss(target.hidden, own.hidden, mask)
    if weights.attention > 0 and own.attentions and target.attentions:
        total = total + weights.attention * attention_loss(target.attentions, own.attentions, mask)
    return total / z


def pair_loss(
    teacher: Outputs | None,
    student: Outputs | None,
    labels: Tensor,
    mask: Tensor | None,
    losses: TaskLosses,
    weights: Weights,
    mode: Mode = "stable",
    received: Outputs | None = None,
) -> PairLoss:
    """Eqs 6 and 7 in one scalar whose gradient is, for each model, that of its own total loss.

    What a model learns from is a constant to it, so one backward pass of the sum serves both. W belongs to
    the student.

    Args:
        teacher, student: their outputs on the batch; where there is but one, its task loss is the total.
        labels: what `losses.task_loss` takes.
        mask: [B, L], 1 on real tokens; None: all are real.
        losses: the task's own loss and divergence.
        weights: of each term.
        mode: see `denominator`.
        received: of the student as the client received it, which the teacher then hears in the place of the student
            that trains beside it; its hidden states and attentions do not matter.
    """
    models = {"teacher": teacher, "student": student}
    tasks = {name: losses.task_loss(own.logits, labels) for name, own in models.items() if own is not None}
    constants = {name: task.detach() for name, task in tasks.items()}
    if teacher is None or student is None:
        return PairLoss(sum(tasks.values(), torch.zeros(())), constants)
    teacher_task, student_task = tasks["teacher"], tasks["student"]
    heard, heard_task = student.detach(), student_task
    if received is not None:
        heard = replace(heard, logits=received.logits, features=received.features)
        heard_task = losses.task_loss(received.logits, labels)
    teacher_total = teacher_task + distillation_loss(
        teacher,
        heard,
        denominator(teacher_task, heard_task, mode),
        labels,
        mask,
        losses,
        weights.teacher_kl,
        weights,
    )
    student_total = student_task + distillation_loss(
        student,
        teacher.detach(),
        denominator(student_task, teacher_task, mode),
        labels,
        mask,
        losses,
        weights.student_kl,
        weights,
    )
    return PairLoss(teacher_total + student_total, constants)


def _correlations(features: Tensor) -> Tensor:
    """Cosines between the rows of [B, D] about their mean, as float32 [B, B]."""
    with torch.autocast(features.device.type, enabled=False):
        centred = features.float() - features.float().mean(0, keepdim=True)
        unit = nn.functional.normalize(centred, dim=1)
        return unit @ unit.T


def _mean_over_layers(target: Sequence[Tensor], output: Sequence[Tensor], mask: Tensor | None) -> Tensor:
    layers = [_masked_mse(t, o, mask) for t, o in zip(target, output, strict=True)]
    return torch.stack(layers).mean()


def _masked_mse(target: Tensor, output: Tensor, mask: Tensor | None) -> Tensor:
    squares = (target.float() - output.float()).square()
    if mask is None:
        return squares.mean()
    weight = mask.to(squares.dtype).expand_as(squares)
    return (squares * weight).sum() / weight.sum().clamp_min(1)
