"""What a run tells while it goes, as typed events; each is a line of JSON between processes."""

import time
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Work = Literal["join", "train", "evaluate"]
"""What a node is asked for: who it is; a round of training; the scores after the last round."""


class _Event(BaseModel):
    """An event; `at` is its time in seconds since the epoch."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    at: float = Field(default_factory=time.time)


class Starting(_Event):
    """A step before the server of the run is up, in words."""

    kind: Literal["starting"] = "starting"
    step: str


class RunBegan(_Event):
    """The server is up and waits for nodes.

    Attributes:
        method: name of the method.
        after: rounds that are done already; more than 0: the run is resumed.
        num_rounds: how many there are in all.
        score: heading of the score that stands for the quality of a model, such as "acc".
        bytes_up, bytes_down: encoded bytes that have travelled already.
    """

    kind: Literal["run-began"] = "run-began"
    method: str
    after: int
    num_rounds: int
    score: str
    bytes_up: int = 0
    bytes_down: int = 0


class Joined(_Event):
    """A node takes part from now on, with data of this title and so many training examples."""

    kind: Literal["joined"] = "joined"
    node: str
    title: str
    examples: int


class Asked(_Event):
    """The server sent these nodes a message; `bytes_down` are the encoded bytes in all of them together."""

    kind: Literal["asked"] = "asked"
    round: int
    work: Work
    nodes: tuple[str, ...]
    bytes_down: int


class Working(_Event):
    """A node has begun with what it was asked for."""

    kind: Literal["working"] = "working"
    node: str
    work: Work


class Stepped(_Event):
    """A node has trained on so many of the batches of its round."""

    kind: Literal["stepped"] = "stepped"
    node: str
    batches: int
    of: int


class Answered(_Event):
    """The answer of a node came in.

    Attributes:
        losses: mean training loss of the round by model.
        student, teacher: the score of the models as the node received them, before the round; None: not scored.
        bytes_up: encoded bytes of its update.
    """

    kind: Literal["answered"] = "answered"
    node: str
    losses: dict[str, float] = {}
    student: float | None = None
    teacher: float | None = None
    bytes_up: int = 0


class Failed(_Event):
    """A node has no answer that counts."""

    kind: Literal["failed"] = "failed"
    node: str
    reason: str


class RoundEnded(_Event):
    """A round is done.

    Attributes:
        trained, asked: nodes whose update was taken, and that were asked.
        losses: mean training loss over the nodes by model.
        bytes_up: encoded bytes of all updates of the round.
        seconds: wall time of the round.
    """

    kind: Literal["round-ended"] = "round-ended"
    round: int
    trained: int
    asked: int
    losses: dict[str, float]
    bytes_up: int
    seconds: float


class Scored(_Event):
    """Mean scores of the models after a round; 0: before the first. None: no such model, or not scored."""

    kind: Literal["scored"] = "scored"
    round: int
    student: float | None = None
    student_own_labels: float | None = None
    teachers: float | None = None


class Warned(_Event):
    """Something that the user should know."""

    kind: Literal["warned"] = "warned"
    text: str


class RunEnded(_Event):
    """The run is finished after this round."""

    kind: Literal["run-ended"] = "run-ended"
    round: int


_OfLaunch = Starting | RunBegan | RunEnded | Warned
_OfNode = Joined | Working | Stepped | Answered | Failed
_OfRound = Asked | RoundEnded | Scored

Event = _OfLaunch | _OfNode | _OfRound

_ADAPTER: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


def to_line(event: Event) -> str:
    """An event as one line of JSON, without the line's end."""
    return event.model_dump_json()


def from_line(line: str | bytes) -> Event:
    """The event that `to_line` made into a line.

    Raises:
        ValueError: the line is none.
    """
    return _ADAPTER.validate_json(line)
