"""What a report says in words and tables: the headline, the nodes, the config, the environment."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedkd_flwr.config.documentation import toml_value
from fedkd_flwr.config.schema import RunConfig, documentation
from fedkd_flwr.tracking.report.figures import colour_of, metrics_of
from fedkd_flwr.tracking.report.source import Source
from fedkd_flwr.tracking.report.words import (
    MODELS,
    capital,
    duration,
    listed,
    megabytes,
    metric_name,
    plural,
    score,
    times,
)

Table = list[list[str]]
"""Rows of cells, the first row of headings."""

_IN_WORDS = {
    "student": "the shared student has",
    "student-own-labels": "with each node's own label frequencies it has",
    "teachers": "the nodes' teachers have",
    "teachers-own-labels": "with each node's own label frequencies they have",
}
_OF_NODES = {
    model.replace("teachers", "teacher"): words.replace("teachers", "teacher") for model, words in MODELS.items()
}
"""The models of a node, by their names in history.json."""


@dataclass(frozen=True)
class Tile:
    """A number of the headline."""

    name: str
    value: str
    note: str


@dataclass(frozen=True)
class NodeRow:
    """A node in the table of nodes; `trouble` are lines on what failed, and notes."""

    cells: list[str]
    trouble: list[str]


def kind_of_run(source: Source) -> str:
    """The run in a line: method, task, nodes, rounds, state."""
    config, rounds = source.config, len(source.history.rounds)
    state = "finished" if source.finished else "not finished"
    if source.history.ended_early:
        state = "ended early, as no round was better any more"
    of = "" if rounds == config.num_rounds else f" of {config.num_rounds}"
    nodes = plural(len(source.history.data), "node")
    return f"{config.method} on {config.task}, {nodes}, {rounds}{of} rounds, {state}"


def sentence(source: Source) -> str:
    """The outcome of a run in words."""
    outcome, metric, found = source.outcome, source.summary.metrics.shown[0], []
    for model, words in _IN_WORDS.items():
        if outcome is not None and (value := source.score(outcome, model, metric)) is not None:
            found.append(f"{words} {score(value)}")
    parts = []
    if outcome is not None and found:
        when = f"after round {outcome.number}" if outcome.number else "before training"
        parts.append(f"{capital(metric_name(metric))} {when}: {listed(found)}.")
    if source.shares and source.last is not None and source.last.versus_teacher:
        parts.append(
            f"A node sent and received {megabytes(source.megabytes[source.last.number])} MB, "
            f"{times(source.last.versus_teacher)} less than FedAvg on the teacher would have taken."
        )
    return " ".join(parts)


def tiles(source: Source) -> list[Tile]:
    """The numbers of a run's headline."""
    metric, outcome, found = source.summary.metrics.shown[0], source.outcome, []
    first = next((row for row in source.rounds if row.scores), None)
    for model, name in MODELS.items():
        value = source.score(outcome, model, metric) if outcome is not None else None
        if value is not None and first is not None:
            start = source.score(first, model, metric)
            from_start = "" if start is None else f", from {score(start)}"
            found.append(Tile(name, score(value), f"{metric_name(metric)}{from_start}"))
    last = source.last
    if source.shares and last is not None and last.versus_teacher:
        found.append(Tile("MB a node", megabytes(source.megabytes[last.number]), "up and down, the whole run"))
        student = f"; {times(last.versus_student)} than on the student" if last.versus_student else ""
        found.append(Tile("less than FedAvg", times(last.versus_teacher), f"on the teacher{student}"))
    if seconds := sum(entry.seconds.get("round", 0.0) for entry in source.history.rounds):
        found.append(Tile("wall time", duration(seconds), plural(len(source.history.rounds), "round")))
    return found


def runs_table(sources: Sequence[Source]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Several runs against each other: headings, and colour and cells of each run."""
    metrics = metrics_of(sources)
    models = [model for model in MODELS if any(s.outcome and model in s.outcome.scores for s in sources)]
    headings = ["run", "method", *(f"{metric_name(m)}, {MODELS[model]}" for m in metrics for model in models)]
    headings += ["MB a node", "less than FedAvg", "wall time", "rounds"]
    rows = []
    for number, source in enumerate(sources):
        last, rounds = source.last, source.history.rounds
        cells = [source.name, source.config.method]
        cells += [
            score(source.score(source.outcome, m, p) if source.outcome is not None else None)
            for p in metrics
            for m in models
        ]
        cells += [
            megabytes(source.megabytes[last.number]) if source.shares and last else "–",
            times(last.versus_teacher) if source.shares and last and last.versus_teacher else "–",
            duration(sum(entry.seconds.get("round", 0.0) for entry in rounds)),
            f"{len(rounds)}/{source.config.num_rounds}",
        ]
        rows.append((colour_of(number).removeprefix("@"), cells))
    return headings, rows


def nodes_table(source: Source) -> tuple[list[str], list[NodeRow]]:
    """The nodes of a run: headings and rows."""
    history, metric = source.history, source.summary.metrics.shown[0]
    boards: list[Any] = [*reversed(history.rounds), history.initial]
    board = next((b for b in ([history.best] if history.best else []) + boards if b.nodes), None)
    scored = (board.nodes if board is not None else None) or {}
    models = {key: words for key, words in _OF_NODES.items() if any(found.get(key) for found in scored.values())}
    headings = ["node", "data", "training examples", "held out"]
    headings += [*(f"{metric_name(metric)}, {words}" for words in models.values()), "failed rounds", "device"]
    rows = []
    for node, data in history.data.items():
        found = scored.get(node, {})
        failures = [f"round {entry.round}: {entry.failed[node]}" for entry in history.rounds if node in entry.failed]
        notes = [note for b in (history.initial, *history.rounds) for note in b.notes.get(node, [])]
        cells = [node, data["title"], f"{data['train-examples']:,}", f"{found['test-examples']:,}" if found else "–"]
        cells += [score((found.get(model) or {}).get(metric)) for model in models]
        cells += [str(len(failures)) if failures else "–", data.get("device", "–")]
        rows.append(NodeRow(cells, [*failures, *dict.fromkeys(notes)]))
    return headings, rows


def config_rows(sources: Sequence[Source]) -> tuple[Table, Table]:
    """Run-config keys with the value of each run and what they mean: those of interest, and the others.

    Of interest is a key that is not at its default in each run.
    """
    defaults, meanings = RunConfig.defaults(), documentation()
    configs = [source.config.as_run_config() for source in sources]
    changed: Table = []
    others: Table = []
    for key, default in defaults.items():
        values = [config[key] for config in configs]
        row = [key, *map(toml_value, values), toml_value(default), meanings[key]]
        (changed if any(value != default for value in values) else others).append(row)
    return changed, others


def environment_rows(source: Source) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Each start of a run: its heading, and names and values."""
    for entry in source.history.environment:
        rest: Mapping[str, Any] = {k: v for k, v in entry.items() if k not in ("from-round", "packages")}
        pairs = [(key.replace("-", " "), str(value)) for key, value in rest.items() if value]
        seed = ("seed", str(source.config.seed))
        yield f"from round {entry['from-round']}", [*entry["packages"].items(), *pairs, seed]


MODELS_NOTE = (
    "Student: the model that is shared, on every node's held-out examples. Own labels: the same adjusted to the label "
    "frequencies of each node, as nodes export it. Teacher: each node's own model, on its own held-out examples."
)
"""How the scored models differ."""
