"""The state of a run, put together from its events: what a view of it shows."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal

from fedkd_flwr.live.events import (
    Answered,
    Asked,
    Event,
    Failed,
    Joined,
    RoundEnded,
    RunBegan,
    RunEnded,
    Scored,
    Starting,
    Stepped,
    Work,
    Working,
)

Doing = Literal["waits", "works", "done", "failed"]

_TRAINING_SHARE = 0.9
"""Share of a node's round that its training takes at most; the rest is encoding and writing its state."""


@dataclass
class NodeRow:
    """A node, as it stands with what it was asked for last.

    Attributes:
        node, title, examples: its name, the title of its data and its training examples; 0: it has not joined yet.
        work, doing: what it was asked for, and how far it is.
        batches, of: batches of its round that it has trained on, and how many there are; 0: it does not say.
        answer: its answer to the round.
        reason: why it failed.
    """

    node: str
    title: str = ""
    examples: int = 0
    work: Work = "join"
    doing: Doing = "waits"
    batches: int = 0
    of: int = 0
    answer: Answered | None = None
    reason: str = ""

    @property
    def share(self) -> float:
        """How much of its work is done, from 0 to 1."""
        if self.doing in ("done", "failed"):
            return 1.0
        return _TRAINING_SHARE * self.batches / self.of if self.of else 0.0


@dataclass
class RoundRow:
    """A round, and the models after it; 0: before the first.

    Attributes:
        ended: trained and asked nodes, losses, bytes up and seconds; None: it has not ended.
        bytes_down: encoded bytes that brought the nodes to its student.
        scored: the scores of the models after it; None: not known yet.
        scores_of: how many nodes' scores are in the mean so far; None: all that will be.
    """

    round: int
    ended: RoundEnded | None = None
    bytes_down: int = 0
    scored: Scored | None = None
    scores_of: int | None = None


@dataclass
class Picture:
    """The state of a run after its events so far.

    Attributes:
        step: the last step before the server was up.
        run: what the server said of the run; None: it is not up.
        round: number of the round that runs, or of the last one; 0: none was begun.
        work: what the nodes were asked for last.
        asked: names of the nodes that were asked last, in order.
        nodes: each node by name, in the order in which they appeared.
        rounds: each round by its number, in order.
        bytes_up, bytes_down: encoded bytes of the whole run so far, over all nodes.
        over: the run is finished.
    """

    step: str = ""
    run: RunBegan | None = None
    round: int = 0
    work: Work = "join"
    asked: tuple[str, ...] = ()
    nodes: dict[str, NodeRow] = field(default_factory=dict)
    rounds: dict[int, RoundRow] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0
    over: bool = False
    _trained_since: float | None = None

    def take(self, event: Event) -> None:
        """Bring the picture up to date with an event."""
        match event:
            case Starting():
                self.step = event.step
            case RunBegan():
                self.run, self.round = event, event.after
                self.bytes_up, self.bytes_down = event.bytes_up, event.bytes_down
            case Joined():
                row = self._node(event.node)
                row.title, row.examples, row.doing = event.title, event.examples, "done"
            case Asked():
                self._ask(event)
            case Working():
                row = self._node(event.node)
                if row.doing == "waits":
                    row.work, row.doing = event.work, "works"
            case Stepped():
                row = self._node(event.node)
                row.batches, row.of = event.batches, event.of
            case Answered():
                row = self._node(event.node)
                row.doing, row.answer = "done", event
                self.bytes_up += event.bytes_up
                self._score_so_far(event.at)
            case Failed():
                row = self._node(event.node)
                row.doing, row.answer, row.reason = "failed", None, event.reason
            case RoundEnded():
                self._round(event.round).ended = event
            case Scored():
                row_ = self._round(event.round)
                row_.scored, row_.scores_of = event, None
            case RunEnded():
                self.over = True

    @property
    def rows(self) -> list[NodeRow]:
        """The nodes that were asked last; before any was: all that are known."""
        return [self._node(name) for name in self.asked] if self.asked else list(self.nodes.values())

    @property
    def answers_score(self) -> int:
        """The round after which the models are that the answers to the last messages score."""
        return self.round - 1 if self.work == "train" else self.round

    @property
    def share(self) -> float:
        """How much of the rounds that this launch has to train is done, from 0 to 1."""
        if self.run is None or not self.round or self.run.num_rounds <= self.run.after:
            return 0.0
        ended = sum(row.ended is not None for row in self.rounds.values())
        current = self.rounds.get(self.round)
        running = self.work == "train" and not (current and current.ended) and self.rows
        share = fmean(row.share for row in self.rows) if running else 0.0
        return min(1.0, (ended + share) / (self.run.num_rounds - self.run.after))

    def seconds_left(self, now: float) -> float | None:
        """Seconds that the rounds will still take if they go on at this pace; None: nothing is known yet.

        Args:
            now: seconds since the epoch.
        """
        if self._trained_since is None or not self.share:
            return None
        return max(0.0, (now - self._trained_since) * (1 - self.share) / self.share)

    def _ask(self, event: Asked) -> None:
        self.round, self.work, self.asked = event.round, event.work, event.nodes
        self.bytes_down += event.bytes_down
        if event.work == "train" and self._trained_since is None:
            self._trained_since = event.at
        self._round(self.answers_score).bytes_down += event.bytes_down
        for name in event.nodes:
            before = self._node(name)
            self.nodes[name] = NodeRow(name, before.title, before.examples, event.work)

    def _score_so_far(self, at: float) -> None:
        """Keep the mean of the scores that have come in of the models that the nodes were sent."""
        answers = [row.answer for row in self.rows if row.answer is not None]
        student = _mean(answer.student for answer in answers)
        teachers = _mean(answer.teacher for answer in answers)
        row = self._round(self.answers_score)
        if (student, teachers) != (None, None) and (row.scored is None or row.scores_of is not None):
            row.scored = Scored(at=at, round=row.round, student=student, teachers=teachers)
            row.scores_of = len(answers)

    def _node(self, name: str) -> NodeRow:
        return self.nodes.setdefault(name, NodeRow(name))

    def _round(self, number: int) -> RoundRow:
        return self.rounds.setdefault(number, RoundRow(number))


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of those that are there; None: there are none."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
