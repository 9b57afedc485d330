"""What a run achieved and sent, round by round: read from its history.json, shown as a table."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from fedkd_flwr.config.tasks import TASKS, Metrics
from fedkd_flwr.errors import StateError
from fedkd_flwr.tracking.seconds import in_words

_MB = 1e6

MODELS = {
    "student": ("\nstudent", "\n"),
    "student-own-labels": ("student\nown", "\nlabels"),
    "teachers": ("\nteacher", "\n"),
    "teachers-own-labels": ("teacher\nown", "\nlabels"),
}
"""The models that are scored, as history.json names them, and the two lines above their two columns."""


@dataclass(frozen=True)
class Scores:
    """Quality of one model, or the mean of the nodes' models, in the two scores that are shown; None: undefined."""

    first: float | None
    second: float | None


@dataclass(frozen=True)
class Round:
    """One line of the summary. Round 0 is the untrained state; the best round comes once more, as it is exported.

    `scores` are those of each model of `MODELS` that was scored. `up` and `down` are bytes per node, the mean over the
    nodes whose update was taken, and over those that were brought to the student of this round. `versus_teacher` and
    `versus_student` are how many times less was sent, up to and with this round, than FedAvg would have sent had it
    exchanged the whole teacher, or student, with the same nodes.
    """

    number: int
    best: bool = False
    asked: int = 0
    trained: int = 0
    scores: Mapping[str, Scores] = field(default_factory=dict)
    up: float | None = None
    down: float | None = None
    versus_teacher: float | None = None
    versus_student: float | None = None


@dataclass(frozen=True)
class Summary:
    """A run's rounds, which scores they show, the bytes of sending its teacher or student once, dense, and seconds.

    `footnotes` are what one must know of the scores. `seconds` are `RoundEntry.seconds` of each round.
    """

    rounds: tuple[Round, ...]
    metrics: Metrics
    teacher_bytes: int
    student_bytes: int
    footnotes: tuple[str, ...]
    seconds: tuple[Mapping[str, float], ...]


def read_summary(run: Path) -> Summary:
    """Read and add up the history of a run, finished or not.

    Raises:
        StateError: one line: there is no history.json in the folder, or it is not one.
    """
    path = run / "history.json"
    try:
        return summarise(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise StateError(f"{run} has no results yet: {path} cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StateError(f"{path} is not the history of a run: {type(error).__name__} {error}") from None


def summarise(history: Mapping[str, Any]) -> Summary:
    """Add up a history as history.json holds it."""
    teacher_bytes, student_bytes = (int(history["sizes"][f"{model}-bytes"]) for model in ("teacher", "student"))
    initial, metrics = history["initial"], TASKS[history["config"]["task"]].metrics
    start = Round(0, scores=_scores(initial, metrics))
    rounds = [start] if start.scores else []
    sent, exchanges = initial["bytes-down"], 0
    for entry in history["rounds"]:
        trained, refreshed, up, down = (entry[key] for key in ("trained", "refreshed", "bytes-up", "bytes-down"))
        sent += up + down
        exchanges += trained + refreshed
        rounds.append(
            Round(
                number=entry["round"],
                asked=entry["asked"],
                trained=trained,
                scores=_scores(entry, metrics),
                up=_ratio(up, trained),
                down=_ratio(down, refreshed),
                versus_teacher=_ratio(exchanges * teacher_bytes, sent),
                versus_student=_ratio(exchanges * student_bytes, sent),
            )
        )
    if best := history.get("best"):
        rounds.append(Round(best["round"], best=True, scores=_scores(best, metrics)))
    footnotes = (*_where_undefined(history["rounds"], metrics), *_whose_labels(rounds), *_which_is_exported(history))
    seconds = tuple(entry["seconds"] for entry in history["rounds"])
    return Summary(tuple(rounds), metrics, teacher_bytes, student_bytes, footnotes, seconds)


def as_table(summary: Summary) -> Table:
    """Render a summary for the terminal."""
    teacher, student = summary.teacher_bytes / _MB, summary.student_bytes / _MB
    models = [name for name in MODELS if any(name in row.scores for row in summary.rounds)]
    title, headings = summary.metrics.title if models else "No scores yet", summary.metrics.headings
    caption = [
        *summary.footnotes,
        f"FedAvg sends {teacher:.2f} MB (teacher) or {student:.2f} MB (student) each way; "
        "× less than that: up to and with the round",
        in_words(summary.seconds),
    ]
    table = Table(
        title=f"{title}; MB per node and round, mean over the nodes that took part",
        caption="\n".join(line for line in caption if line),
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 0 if len(models) == len(MODELS) else 1),
        pad_edge=False,
    )
    scored = [f"{above}\n{name}" for m in models for above, name in zip(MODELS[m], headings, strict=True)]
    sent = ("\nMB\nup", "\nMB\ndown", "× less\nthan\nteacher", "× less\nthan\nstudent")
    for heading in ("\n\nround", "\n\nnodes", *scored, *sent):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in summary.rounds:
        table.add_row(
            f"best {row.number}" if row.best else str(row.number) if row.number else "start",
            f"{row.trained}/{row.asked}" if row.asked else "",
            *(cell for model in models for cell in _score_cells(row.scores.get(model))),
            _cell(row.up, 1 / _MB, 3),
            _cell(row.down, 1 / _MB, 3),
            _cell(row.versus_teacher, 1, 1),
            _cell(row.versus_student, 1, 1),
        )
    return table


def _scores(board: Mapping[str, Any], metrics: Metrics) -> dict[str, Scores]:
    return {model: Scores(*map(found.get, metrics.shown)) for model in MODELS if (found := board.get(model))}


def _where_undefined(rounds: Sequence[Mapping[str, Any]], metrics: Metrics) -> Iterator[str]:
    """Which of the shown scores are undefined at nodes, as it was in the last evaluated round."""
    last = next((entry for entry in reversed(rounds) if entry["nodes"]), None)
    for name, heading in zip(metrics.shown, metrics.headings, strict=True):
        if last and (count := last.get("nodes-scored", {}).get(name)) is not None:
            yield f"{heading}: over {count} of {len(last['nodes'])} nodes; undefined or withheld at the others"


def _whose_labels(rounds: Sequence[Round]) -> Iterator[str]:
    if any("student-own-labels" in row.scores for row in rounds):
        yield (
            "student: as it is shared, on every node's held-out rows; own labels: adjusted to the label frequencies of "
            "each node, as nodes export it"
        )


def _which_is_exported(history: Mapping[str, Any]) -> Iterator[str]:
    if best := history.get("best"):
        yield f"best: round {best['round']}, by {best['metric']}, is exported; scores of all nodes that exported it"
    if history.get("ended-early"):
        config = history["config"]
        patience, metric = config["federation.early-stopping"], config["federation.keep-best"]
        yield f"ended early: {patience} evaluations without a better {metric}"


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator else None


def _score_cells(scores: Scores | None) -> tuple[str, str]:
    return ("", "") if scores is None else (_cell(scores.first, 1, 3), _cell(scores.second, 1, 3))


def _cell(value: float | None, scale: float, digits: int) -> str:
    return "" if value is None else f"{value * scale:.{digits}f}"
