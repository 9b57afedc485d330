"""What a run reports of each round: scores, bytes, seconds."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from fedkd_flwr.messages import Evaluation, Scores
from fedkd_flwr.weights import capped

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Scored:
    """Scores of the models after a round.

    Attributes:
        student, teachers: means over nodes, weighted by held-out examples. The models whose heads travel as they are.
        student_own_labels, teachers_own_labels: the same of models that are adjusted to each node's label frequencies;
            None where none are.
        nodes: node -> its own scores.
        not_exported: node -> why it has not written its models as folders, after the last round.
        nodes_scored: metric -> at how many of the nodes it is defined, of those that are not defined at all of them;
            its means are over these.
        server: the student's scores on the server's own test data.
    """

    student: Scores | None = None
    student_own_labels: Scores | None = None
    teachers: Scores | None = None
    teachers_own_labels: Scores | None = None
    nodes: dict[str, dict[str, Any]] | None = None
    not_exported: dict[str, str] = field(default_factory=dict)
    nodes_scored: dict[str, int] = field(default_factory=dict)
    server: Scores | None = None

    def record(self, evaluations: Mapping[str, Evaluation], metrics: Iterable[str], max_share: float = 1.0) -> None:
        """Fill in what the nodes found.

        Args:
            evaluations: by node.
            metrics: names of those that these nodes can have.
            max_share: the most that the held-out examples of a node count among those of all.
        """
        if not evaluations:
            return
        found = evaluations.values()
        weights = capped([e.examples for e in found], max_share)
        self.student = mean_scores(zip(weights, [e.student for e in found], strict=True))
        self.student_own_labels = mean_scores(zip(weights, [e.student_own_labels for e in found], strict=True))
        self.teachers = mean_scores(zip(weights, [e.teacher for e in found], strict=True))
        self.teachers_own_labels = mean_scores(zip(weights, [e.teacher_own_labels for e in found], strict=True))
        self.nodes = {
            node: {
                "student": e.student,
                "student-own-labels": e.student_own_labels,
                "teacher": e.teacher,
                "teacher-own-labels": e.teacher_own_labels,
                "test-examples": e.examples,
            }
            for node, e in evaluations.items()
        }
        defined = Counter(name for e in found for name in e.student or e.teacher or {})
        self.nodes_scored = {name: defined[name] for name in metrics if defined[name] < len(found)}


@dataclass
class ScoreBoard(Scored):
    """The models after a round: scores, and what it cost to bring the student there to the nodes.

    Attributes:
        refreshed: nodes that were brought to the student, with the next message.
        bytes_down: encoded bytes, over all nodes, that it took.
        notes: node -> what its owner should know (a state that was lost, say).
    """

    refreshed: int = 0
    bytes_down: int = 0
    notes: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class RoundEntry(ScoreBoard):
    """One round: who took part, what travelled, where the time went.

    Attributes:
        round: from 1.
        codec: how its updates were encoded.
        distillation: mean weight of each distillation term over these nodes.
        losses: mean training loss of student and teacher over the nodes whose update was taken.
        asked, trained: nodes that were asked, and whose update was taken.
        failed: node -> why its update was not taken.
        bytes_up: encoded bytes of all updates that came in.
        seconds: `round` is wall time at the server; `import` (start of a process for one message, until its
            handler), `setup`, `state`, `codec`, `evaluate`, `train` are summed over the nodes; `server` is the
            server's own work; `flower` is wall time in which even the busiest node waited for Flower.
    """

    round: int = 0
    codec: dict[str, Any] = field(default_factory=dict)
    distillation: Scores = field(default_factory=dict)
    losses: Scores = field(default_factory=dict)
    asked: int = 0
    trained: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    bytes_up: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass
class BestEntry(Scored):
    """The exported models of the best round, scored by the nodes that exported them.

    Attributes:
        round: which it is.
        metric: by which it is.
    """

    round: int = 0
    metric: str = ""

    @classmethod
    def of(cls, round: int, metric: str, board: Scored) -> "BestEntry":
        """The entry of a round with what is known of it."""
        return cls(**{each.name: getattr(board, each.name) for each in fields(Scored)}, round=round, metric=metric)


@dataclass
class History:
    """All rounds of a run.

    Attributes:
        initial: the scores before the first round.
        rounds: from the first.
        best: of what is exported, where that is the best round; None until the run has finished.
        ended_early: the run ended before its last round, because no round was better any more.
        data: which each node has, and where it computes.
        environment: of each start of the run, the first and those that resumed it; see `environment.start_of`.
    """

    initial: ScoreBoard = field(default_factory=ScoreBoard)
    rounds: list[RoundEntry] = field(default_factory=list)
    best: BestEntry | None = None
    ended_early: bool = False
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    environment: list[dict[str, Any]] = field(default_factory=list)

    def after(self, round: int) -> ScoreBoard:
        """Where the scores of the models after `round` (0: before the first) belong."""
        return self.rounds[round - 1] if round else self.initial

    def in_words(self, round: int) -> str:
        """The first score of student and teachers after a round, for the log; empty where there is none."""
        board = self.after(round)
        parts = [
            f"{name} of the {who} {value:.3f}"
            for who, scores in (
                ("student", board.student),
                ("student with each node's own label frequencies", board.student_own_labels),
                ("teachers", board.teachers_own_labels or board.teachers),
            )
            for name, value in list((scores or {}).items())[:1]
        ]
        return f"; after round {round}: {', '.join(parts)}" if parts else ""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values with kebab-case keys."""
        return {
            "initial": _kebab(asdict(self.initial)),
            "rounds": [_kebab(asdict(entry)) for entry in self.rounds],
            "data": self.data,
            "best": self.best and _kebab(asdict(self.best)),
            "ended-early": self.ended_early,
            "environment": self.environment,
        }

    def to_pandas(self) -> "pd.DataFrame":
        """A table with a row for each round; row 0 is before the first.

        Columns: scores of each model, such as `student_accuracy` and `teachers_own_labels_accuracy`; mean training
        losses, such as `loss_student`; weights of the distillation terms, such as `weight_student_kl`; `asked`,
        `trained` and `failed` clients, and those `refreshed` with the round's student; encoded bytes over all clients,
        `bytes_up` of the round's updates and `bytes_down` of bringing the clients to its student; wall `seconds` of the
        round, and of its parts as `RoundEntry.seconds` has them, such as `seconds_train`. NaN: not measured.
        """
        import pandas as pd

        columns = [board_numbers(self.initial), *(training_numbers(e) | board_numbers(e) for e in self.rounds)]
        rows = [{name.replace("/", "_"): value for name, value in row.items()} for row in columns]
        return pd.DataFrame(rows, index=pd.RangeIndex(len(rows), name="round"))

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "History":
        """What `as_dict` made."""
        return cls(
            ScoreBoard(**_snake(stored["initial"])),
            [RoundEntry(**_snake(entry)) for entry in stored["rounds"]],
            stored["best"] and BestEntry(**_snake(stored["best"])),
            stored["ended-early"],
            stored["data"],
            stored["environment"],
        )


def board_numbers(board: ScoreBoard) -> dict[str, float]:
    """The scores of the models after a round, and what it took to bring nodes to the student, as GROUP/NAME."""
    scored = ("student", "student_own_labels", "teachers", "teachers_own_labels", "server")
    scores = {f"{model}/{name}": v for model in scored for name, v in (getattr(board, model) or {}).items()}
    return scores | {"refreshed": board.refreshed, "bytes/down": board.bytes_down}


def training_numbers(entry: RoundEntry) -> dict[str, float]:
    """How a round went, as GROUP/NAME."""
    return {
        **{f"loss/{name}": value for name, value in entry.losses.items()},
        **{f"weight/{name.replace('-', '_')}": value for name, value in entry.distillation.items()},
        "asked": entry.asked,
        "trained": entry.trained,
        "failed": len(entry.failed),
        "bytes/up": entry.bytes_up,
        **{"seconds" if part == "round" else f"seconds/{part}": value for part, value in entry.seconds.items()},
    }


def mean_scores(weighted: Iterable[tuple[float, Scores | None]]) -> Scores | None:
    """Weighted mean of each score over those that have it; None where nobody has any, of no weight or more."""
    columns: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for weight, scores in weighted:
        for name, value in (scores or {}).items() if weight else ():
            columns[name].append((weight, value))
    return {
        name: sum(weight * value for weight, value in column) / sum(weight for weight, _ in column)
        for name, column in columns.items()
    } or None


def prefixed(prefix: str, scores: Scores | None) -> Scores:
    """The same scores under longer names; none of none."""
    return {f"{prefix}-{name}": value for name, value in (scores or {}).items()}


def _kebab(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("_", "-"): value for key, value in entry.items()}


def _snake(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("-", "_"): value for key, value in entry.items()}
