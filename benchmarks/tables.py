"""Tables of results files: runs by scores."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

RESULTS = Path(__file__).parent / "results"

Line = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A run of a study, or one of its two models.

    Attributes:
        label: how the table calls it.
        variant: how the results file calls it.
        who: "student" or "teachers"; empty: the column says which.
        seed: this seed alone; -1: all there are.
    """

    label: str
    variant: str
    who: str = ""
    seed: int = -1


@dataclass(frozen=True)
class Column:
    """A score of the runs.

    Attributes:
        title: the column's head.
        scenario: as the results file calls it; empty, for `seeds` and `mb`: all that the run has.
        metric: a score, "mb" (bytes up and down of a node so far, in MB) or "seeds" (how many there are).
        who: "student" or "teachers", where the row does not say it.
        beside: a second score, in brackets.
        digits: decimals.
        at: the round; 0: the last.
        node: the score of this node alone; -1: the mean over the nodes.
        error: the standard error is shown.
    """

    title: str
    scenario: str
    metric: str
    who: str = ""
    beside: str = ""
    digits: int = 3
    at: int = 0
    node: int = -1
    error: bool = True


@dataclass(frozen=True)
class Table:
    """Runs by scores, from one results file."""

    file: str
    head: str
    rows: Sequence[Row]
    columns: Sequence[Column]

    def markdown(self) -> str:
        """The lines of the table."""
        lines = read(self.file)
        found = [[row.label, *(_cell(lines, row, column) for column in self.columns)] for row in self.rows]
        head = [self.head, *(column.title for column in self.columns)]
        return "".join(f"| {' | '.join(cells)} |\n" for cells in [head, ["---"] * len(head), *found])


def read(file: str) -> list[Line]:
    """The lines of a results file."""
    return [json.loads(line) for line in (RESULTS / file).read_text().splitlines()]


def _cell(lines: Sequence[Line], row: Row, column: Column) -> str:
    runs = [
        line
        for line in lines
        if line["variant"] == row.variant
        and column.scenario in ("", line["scenario"])
        and row.seed in (-1, line["seed"])
    ]
    if column.metric == "seeds":
        return " to ".join(sorted({str(_count(runs, line["scenario"])) for line in runs}))
    if column.scenario and len({json.dumps(line["settings"], sort_keys=True) for line in runs}) > 1:
        raise SystemExit(f"{row.variant}, {column.scenario}: its seeds were made with different settings")
    rounds = [entry for line in runs if (entry := _round(line, column.at))]
    if column.metric == "mb":
        return f"{mean(entry['mb'] for entry in rounds):.{column.digits}f}" if rounds else ""
    scores = [found for entry in rounds if (found := _scores(entry, row.who or column.who, column.node))]
    text = _mean([s[column.metric] for s in scores if column.metric in s], column.digits, column.error)
    second = _mean([s[column.beside] for s in scores if column.beside in s], column.digits, False)
    return f"{text} ({second})" if text and second else text


def _count(runs: Sequence[Line], scenario: str) -> int:
    return sum(line["scenario"] == scenario for line in runs)


def _round(line: Line, at: int) -> Line:
    """The evaluated round with this number, or the last; empty where it was not evaluated."""
    rounds: list[Line] = line["rounds"]
    return rounds[-1] if not at else next((entry for entry in rounds if entry["round"] == at), {})


def _scores(entry: Line, who: str, node: int) -> Line | None:
    """The scores of a model; None where the run has no such model."""
    if node < 0:
        scores: Line | None = entry[who]
        return scores
    of_node: Line = entry["nodes"][sorted(entry["nodes"])[node]]
    found: Line | None = of_node[who.removesuffix("s")]
    return found


def _mean(values: Sequence[float], digits: int, error: bool) -> str:
    if not values:
        return ""
    text = f"{mean(values):.{digits}f}"
    return f"{text} ± {stdev(values) / len(values) ** 0.5:.{digits}f}" if error and len(values) > 1 else text
