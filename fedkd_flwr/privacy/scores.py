"""What of a node's scores and counts leaves it: pure functions of what was found, under its owner's limits.

Counts are told in steps of a cell: two answers that differ by a few examples are the same answer. A score is told to a
few decimals, and only where it is over enough examples for none of them to show.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from fedkd_flwr.config.policy import ScoreLimits
from fedkd_flwr.data import DataReport
from fedkd_flwr.messages import (
    DataCounts,
    EvaluateReply,
    Evaluation,
    JoinReply,
    Scores,
    TrainReply,
)
from fedkd_flwr.tasks.label_priors import shares

AnyReply = TypeVar("AnyReply", JoinReply, TrainReply, EvaluateReply)

_OF_TWO_CLASSES = frozenset({"f1", "average-precision"})
_OF_SPANS = frozenset({"span-f1", "precision", "recall"})

_NONE = {"longest": 0}
"""The length of the longest text is that of one text."""


@dataclass(frozen=True)
class HeldOut:
    """What scores are over.

    Attributes:
        examples: how many there are.
        labels: the names of all classes.
        counts: of how many of the examples, or their words, each label is; empty where the labels are no classes.
    """

    examples: int
    labels: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()

    def enough(self, limits: ScoreLimits) -> bool:
        """Whether any score may be told."""
        return self.examples >= limits.min_held_out

    def cell(self, metric: str) -> int:
        """Of how many examples, or spans, a metric is that is of a part of them; else of how many it is at all."""
        if metric in _OF_TWO_CLASSES and self.counts:
            return min(self.counts)
        if metric in _OF_SPANS and self.counts:
            return sum(n for label, n in zip(self.labels, self.counts, strict=True) if label.startswith("B-"))
        return self.examples


def bounded(reply: AnyReply, limits: ScoreLimits, held_out: HeldOut) -> AnyReply:
    """A reply as it may leave; told again, it is the same.

    Args:
        reply: with all that was found.
        limits: of the owner.
        held_out: what the scores in it are over.
    """
    match reply:
        case JoinReply():
            counts = reply.data.model_dump()
            changes = {
                "train_examples": weight(reply.train_examples, limits.min_cell),
                "data": DataCounts(**{key: floor(count, limits.min_cell) for key, count in counts.items()} | _NONE),
            }
        case TrainReply():
            changes = {
                "evaluation": reply.evaluation and _evaluation(reply.evaluation, limits, held_out),
                "losses": _rounded(reply.losses, limits) if limits.training_losses else {},
                "distillation": _rounded(reply.distillation, limits) if limits.training_losses else {},
            }
        case EvaluateReply():
            changes = {"evaluation": _evaluation(reply.evaluation, limits, held_out)}
    return reply.model_copy(update=changes)


def bounded_report(report: DataReport, limits: ScoreLimits) -> DataReport:
    """The counts of a node's data as they may be told."""
    counts = {key: floor(getattr(report, key), limits.min_cell) for key in DataCounts.model_fields}
    return replace(report, **counts | _NONE, classes=(), held_out=())


def bounded_shares(counts: Sequence[int], examples: int | None, cell: int) -> tuple[float, ...]:
    """Label shares as they may be told: of each count the middle of its step.

    Logit adjustment needs a reference that all nodes have in common, whichever it is; each node's own shares are exact.

    Args:
        counts: of the training examples that have each label.
        examples: how many there are; None: as many as labels.
        cell: the size of a step; 1: all is told.
    """
    middles = [middle(count, cell) for count in counts]
    return shares(middles, sum(middles) if examples is None else middle(examples, cell))


def floor(count: int, cell: int) -> int:
    """The lower end of the step that a count is in: 0 of less than a cell."""
    return count - count % cell


def middle(count: int, cell: int) -> int:
    """The middle of the step that a count is in."""
    return floor(count, cell) + cell // 2


def weight(count: int, cell: int) -> int:
    """The lower end of the step that a count is in, which is never 0: means are weighted by it."""
    return max(cell, floor(count, cell))


def too_few(limits: ScoreLimits) -> str:
    """Why a node has no scores, for people."""
    return f"it holds out fewer than {limits.min_held_out} examples: by its owner's policy it tells no scores"


def _evaluation(found: Evaluation, limits: ScoreLimits, held_out: HeldOut) -> Evaluation:
    if not held_out.enough(limits):
        return Evaluation(student=None, teacher=None, examples=0)
    return Evaluation(
        student=_allowed(found.student, limits, held_out),
        teacher=_allowed(found.teacher, limits, held_out),
        student_own_labels=_allowed(found.student_own_labels, limits, held_out),
        teacher_own_labels=_allowed(found.teacher_own_labels, limits, held_out),
        examples=weight(found.examples, limits.min_cell),
    )


def _allowed(scores: Scores | None, limits: ScoreLimits, held_out: HeldOut) -> Scores | None:
    if scores is None:
        return None
    named = {name: value for name, value in scores.items() if name in limits.metrics or not limits.metrics}
    few = min(limits.min_cell, held_out.examples)
    return _rounded({name: value for name, value in named.items() if held_out.cell(name) >= few}, limits) or None


def _rounded(scores: Mapping[str, float], limits: ScoreLimits) -> Scores:
    return {name: round(value, limits.digits) for name, value in scores.items()}
