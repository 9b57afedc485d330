"""Everything that leaves a node with data of its own, field by field; docs/privacy.md has this table.

A reply is one JSON body, and with an update one array of bytes. Nothing else of a node travels: a field that is missing
here is one that nobody thought of, and a test fails.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from pydantic import BaseModel

from fedkd_flwr.messages import EvaluateReply, JoinReply, TrainReply


@dataclass(frozen=True)
class Leaving:
    """A field of a reply.

    Attributes:
        says: what a reader learns from it about the node.
        bound: what keeps it small or coarse; policy keys as GROUP.KEY.
    """

    says: str
    bound: str


_STEPS = "a count in steps of scores.min-cell"
_NAME = Leaving("the name under which the node keeps its state", "node-config key `name`, 64 characters")
_VERSION = Leaving("which version of the student it starts from", "a number that the server gave")
_NOTES = Leaving("sentences on its state and its counts", "fixed sentences with counts, no text of the data")
_SECONDS = Leaving("how long each part of its work took", "a number for each of a few fixed parts")
_WORKER = Leaving("which process did the work", "a random id of the process")
_EXAMPLES = Leaving("how many examples it trains on", _STEPS)
_HELD_OUT = Leaving("how many examples it holds out", "in steps of scores.min-cell; 0 below scores.min-held-out")
_SCORE = "one number a metric, over all held-out examples"
_SCORE_BOUND = "scores.metrics, scores.digits; none of fewer examples than scores.min-held-out"

JOIN: dict[str, Leaving] = {
    "node": _NAME,
    "partition": Leaving("its place in the order of sums", "0 where the data are the node's own"),
    "title": Leaving("what its data are called", "the name of the node, no path"),
    "labels": Leaving(
        "the names of the classes", "named by the run or the owner, never taken from the data; data.labels"
    ),
    "train_examples": _EXAMPLES,
    "data.rows": Leaving("rows that were read", _STEPS),
    "data.repeats": Leaving("rows that repeat another", _STEPS),
    "data.conflicts": Leaving("repeats with another label", _STEPS),
    "data.unlabelled": Leaving("rows without a label", _STEPS),
    "data.cut": Leaving("examples that are longer than `model.max-length`", _STEPS),
    "data.longest": Leaving("tokens of the longest example", "not told: 0 under a policy"),
    "label_shares": Leaving(
        "how frequent each label is among its training examples",
        "only where the run adjusts logits or balances classes; of counts in steps of scores.min-cell",
    ),
    "partitions": Leaving("among how many nodes a data set is shared out", "0 where the data are the node's own"),
    "round": Leaving("in which round of this run it trained last", "a number that the server gave"),
    "version": _VERSION,
    "digest": Leaving("SHA-256 of the student that it holds", "the student is the server's, the data do not enter"),
    "encoder_digest": Leaving("the same without heads", "the student is the server's, the data do not enter"),
    "frozen_digest": Leaving("SHA-256 of the student's frozen tensors", "of the checkpoint, the data do not enter"),
    "teacher_bytes": Leaving("how large its teacher is", "of the checkpoint, the data do not enter"),
    "device": Leaving(
        "whether it computes on a CPU or a GPU, how precisely, with how many threads",
        "of the machine, the data do not enter",
    ),
    "notes": _NOTES,
}

_EVALUATION: dict[str, Leaving] = {
    "evaluation.student": Leaving(f"scores of the student as received: {_SCORE}", _SCORE_BOUND),
    "evaluation.teacher": Leaving(f"scores of the node's teacher: {_SCORE}", _SCORE_BOUND),
    "evaluation.student_own_labels": Leaving("the student's scores, adjusted to the node's labels", _SCORE_BOUND),
    "evaluation.teacher_own_labels": Leaving("the teacher's scores, adjusted to the node's labels", _SCORE_BOUND),
    "evaluation.examples": _HELD_OUT,
}

TRAIN: dict[str, Leaving] = {
    "lineage": Leaving("which run it answers", "an id that the server gave"),
    "node": _NAME,
    "round": Leaving("which round it answers", "a number that the server gave"),
    "version": _VERSION,
    **_EVALUATION,
    "losses": Leaving("mean training loss of teacher and student", "only where scores.training-losses allows it"),
    "distillation": Leaving(
        "how much its models learn from each other", "follows from the run-config; only where losses may leave"
    ),
    "seconds": _SECONDS,
    "worker": _WORKER,
    "notes": _NOTES,
    "update": Leaving(
        "how training on the node's examples changed the student: the largest part of what leaves, and the one from "
        "which examples can be told",
        "all of training.*, update.min-compression, runs.max-bytes-a-run",
    ),
}

EVALUATE: dict[str, Leaving] = {
    "node": _NAME,
    "version": _VERSION,
    **_EVALUATION,
    "not_exported": Leaving("why it has not written its models as folders", "a fixed sentence or a log id"),
    "seconds": _SECONDS,
    "worker": _WORKER,
    "notes": _NOTES,
}

ERROR: dict[str, Leaving] = {
    "reason": Leaving(
        "why the node refuses", "a fixed sentence that names keys, or the type of an error and the id of its log line"
    ),
}

REPLIES: dict[str, dict[str, Leaving]] = {"join": JOIN, "train": TRAIN, "evaluate": EVALUATE, "error": ERROR}
"""Reply -> field -> what it says; fields of fields as FIELD.FIELD."""

MODELS: dict[str, type[BaseModel]] = {"join": JoinReply, "train": TrainReply, "evaluate": EvaluateReply}
"""The types of the replies that are no errors."""


def fields_of(reply: type[BaseModel]) -> Iterator[str]:
    """The fields of a reply's type, those of fields as FIELD.FIELD."""
    for name, field in reply.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        nested = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        yield from (name,) if nested is None else (f"{name}.{inner}" for inner in fields_of(nested))


def as_markdown() -> str:
    """The table of docs/privacy.md."""
    lines = ["| reply | field | what it says | how it is bounded |", "|---|---|---|---|"]
    lines += [
        f"| {reply} | `{field}` | {leaving.says} | {leaving.bound} |"
        for reply, fields in REPLIES.items()
        for field, leaving in fields.items()
    ]
    return "\n".join(lines) + "\n"
