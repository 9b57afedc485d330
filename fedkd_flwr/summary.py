"""What a run achieved and sent, round by round: read from its history.json, shown as a table."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from fedkd_flwr.errors import StateError
from fedkd_flwr.seconds import in_words

_MB = 1e6


@dataclass(frozen=True)
class Shown:
    """The two scores of a task by which its runs are judged, what they are together, and their headings."""

    names: tuple[str, str]
    title: str
    headings: tuple[str, str]


_SHOWN = (
    Shown(("accuracy", "span-f1"), "Accuracy of words and F1 of spans", ("acc", "F1")),
    Shown(("micro-f1", "mean-average-precision"), "Micro-F1 and mean average precision", ("F1", "mAP")),
    Shown(("auc", "ndcg@10"), "AUC and nDCG@10", ("AUC", "nDCG")),
    Shown(("mae", "spearman"), "Mean absolute error and rank correlation", ("MAE", "rho")),
    Shown(("accuracy", "macro-f1"), "Accuracy and macro-F1", ("acc", "F1")),
)


@dataclass(frozen=True)
class Scores:
    """Quality of one model, or the mean of the nodes' models, in the two scores that are shown."""

    first: float
    second: float


@dataclass(frozen=True)
class Round:
    """One line of the summary. Round 0 is the untrained state.

    `up` and `down` are bytes per node, the mean over the nodes whose update was taken, and over those that were
    brought to the student of this round. `versus_teacher` and `versus_student` are how many times less was sent,
    up to and with this round, than FedAvg would have sent had it exchanged the whole teacher, or student, with the
    same nodes.
    """

    number: int
    asked: int = 0
    trained: int = 0
    student: Scores | None = None
    teachers: Scores | None = None
    up: float | None = None
    down: float | None = None
    versus_teacher: float | None = None
    versus_student: float | None = None


@dataclass(frozen=True)
class Summary:
    """A run's rounds, which scores they show, the bytes of sending its teacher or student once, dense, and seconds.

    `seconds` are `RoundEntry.seconds` of each round.
    """

    rounds: tuple[Round, ...]
    shown: Shown | None
    teacher_bytes: int
    student_bytes: int
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
    initial = history["initial"]
    start = Round(0, student=_scores(initial["student"]), teachers=_scores(initial["teachers"]))
    rounds = [start] if start.student else []
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
                student=_scores(entry["student"]),
                teachers=_scores(entry["teachers"]),
                up=_ratio(up, trained),
                down=_ratio(down, refreshed),
                versus_teacher=_ratio(exchanges * teacher_bytes, sent),
                versus_student=_ratio(exchanges * student_bytes, sent),
            )
        )
    boards = (board for entry in (initial, *history["rounds"]) for board in (entry["student"], entry["teachers"]))
    shown = next((_shown(board) for board in boards if board), None)
    seconds = tuple(entry["seconds"] for entry in history["rounds"])
    return Summary(tuple(rounds), shown, teacher_bytes, student_bytes, seconds)


def as_table(summary: Summary) -> Table:
    """Render a summary for the terminal."""
    teacher, student = summary.teacher_bytes / _MB, summary.student_bytes / _MB
    title, (first, second) = ("No scores yet", ("", "")) if (s := summary.shown) is None else (s.title, s.headings)
    table = Table(
        title=f"{title}; MB per node and round, mean over the nodes that took part",
        caption=f"FedAvg sends {teacher:.2f} MB (teacher) or {student:.2f} MB (student) each way; "
        "× less than that: up to and with the round" + (f"\n{words}" if (words := in_words(summary.seconds)) else ""),
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        pad_edge=False,
    )
    for heading in (
        "\n\nround", "\n\nnodes", f"\nstudent\n{first}", f"\n\n{second}", f"\nteacher\n{first}", f"\n\n{second}",
        "\nMB\nup", "\nMB\ndown",
        "× less\nthan\nteacher", "× less\nthan\nstudent",
    ):  # fmt: skip
        table.add_column(heading, justify="right", no_wrap=True)
    for row in summary.rounds:
        table.add_row(
            str(row.number) if row.number else "start",
            f"{row.trained}/{row.asked}" if row.number else "",
            *_score_cells(row.student),
            *_score_cells(row.teachers),
            _cell(row.up, 1 / _MB, 3),
            _cell(row.down, 1 / _MB, 3),
            _cell(row.versus_teacher, 1, 1),
            _cell(row.versus_student, 1, 1),
        )
    return table


def _scores(metrics: Mapping[str, float] | None) -> Scores | None:
    return None if metrics is None else Scores(*(metrics[name] for name in _shown(metrics).names))


def _shown(metrics: Mapping[str, float]) -> Shown:
    return next(shown for shown in _SHOWN if metrics.keys() >= set(shown.names))


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator else None


def _score_cells(scores: Scores | None) -> tuple[str, str]:
    return ("", "") if scores is None else (f"{scores.first:.3f}", f"{scores.second:.3f}")


def _cell(value: float | None, scale: float, digits: int) -> str:
    return "" if value is None else f"{value * scale:.{digits}f}"
