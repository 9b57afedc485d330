"""The charts of a report over rounds: quality, quality against MB, losses, distillation, time."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from fedkd_flwr.config.tasks import LOWER_IS_BETTER
from fedkd_flwr.tracking.report.plotting import (
    Chart,
    Line,
    base_layout,
    line_figure,
    logarithmic_axis,
    rounds_axis,
    text,
    titled,
)
from fedkd_flwr.tracking.report.source import Source
from fedkd_flwr.tracking.report.words import MODELS, capital, duration, listed, megabytes, metric_name, score, short

COLOURS = tuple(f"@c{number}" for number in range(8))
"""Those of runs, or of models where there is one run."""

_OF_MODEL = {
    "student": ("@c0", "solid"),
    "student-own-labels": ("@c0", "dot"),
    "teachers": ("@c1", "solid"),
    "teachers-own-labels": ("@c1", "dot"),
}
_OF_RUNS = {"student": "solid", "teachers": "dot"}
"""Models that are drawn where runs are compared."""

_OF_TERM = {
    "student-kl": ("@c0", "solid"),
    "teacher-kl": ("@c1", "dot"),
    "hidden": ("@c2", "dash"),
    "attention": ("@c3", "dashdot"),
}
"""Distillation terms: their colours in one run, their dashes in several."""

_PARTS = {
    "train": ("training", "@c0"),
    "evaluate": ("scoring", "@c2"),
    "codec": ("encoding", "@c1"),
    "state": ("node state", "@c4"),
    "setup": ("setup", "@c6"),
    "import": ("process start", "@c3"),
    "server": ("server", "@c5"),
    "flower": ("waiting for Flower", "@rest"),
}
"""Parts of a round's time: their names and colours."""

_BAR, _LEAST_BAR, _BARS = 24, 8, 480
"""Height of a bar and of many bars, in pixels."""


def colour_of(number: int) -> str:
    """The colour of a run among others."""
    return COLOURS[number % len(COLOURS)]


def metrics_of(sources: Sequence[Source]) -> list[str]:
    """The scores by which these runs are judged."""
    return list(dict.fromkeys(metric for source in sources for metric in source.summary.metrics.shown))


def quality(sources: Sequence[Source]) -> Iterator[Chart]:
    """A chart for each score, over the rounds."""
    for metric in metrics_of(sources):
        lines = [line for n, source in enumerate(sources) for line in _quality_lines(sources, n, source, metric)]
        if not any(line.points for line in lines):
            continue
        note = "Thin lines: each node's own teacher." if len(sources) == 1 else "Solid: student. Dotted: teachers."
        yield Chart(
            title=f"{capital(metric_name(metric))} per round",
            note=f"{note} Round 0 is before training.{_lower(metric)}",
            alt=f"Lines of {metric_name(metric)} over the rounds. {_ends(lines)}",
            figure=line_figure(lines, rounds_axis(0, _last_round(sources)), "round"),
        )


def cost(sources: Sequence[Source]) -> Iterator[Chart]:
    """The first score against what a node has sent and received for it."""
    metric = sources[0].summary.metrics.shown[0]
    lines: list[Line] = []
    for number, source in enumerate(sources):
        rows = [row for row in source.rounds if source.shares and source.megabytes[row.number] > 0]
        for model, colour, dash, name in _models(sources, number, source):
            values = [source.score(row, model, metric) for row in rows]
            lines.append(Line(name, [source.megabytes[row.number] for row in rows], values, colour, dash))
    lines = _labelled_once(lines)
    sent = [x for line in lines for x, _ in line.points]
    if not sent:
        return
    dense = sorted({2 * source.summary.teacher_bytes / 1e6 for source in sources if source.summary.teacher_bytes})
    axis = logarithmic_axis("MB a node, up and down, so far", min(sent) / 1.5, max(*sent, *dense[-1:], 0) * 1.5)
    figure = line_figure(lines, axis, "MB")
    for size in dense:
        figure["layout"].setdefault("shapes", []).append(
            {
                "type": "line", "xref": "x", "yref": "paper", "x0": size, "x1": size, "y0": 0, "y1": 1,
                "line": {"color": "@muted", "width": 1, "dash": "dot"},
            }
        )  # fmt: skip
    name, sizes = capital(metric_name(metric)), listed(dict.fromkeys(f"{megabytes(size)} MB" for size in dense))
    one_round = f" Dotted: a single round of FedAvg on the teacher, {sizes}." if dense else ""
    yield Chart(
        title=f"{name} against MB a node",
        note=f"Each point is a round. The axis is logarithmic.{_lower(metric)}{one_round}",
        alt=f"{name} against the MB that a node has sent and received. {_ends(lines)}{one_round}",
        figure=figure,
        wide=True,
    )


def losses(sources: Sequence[Source]) -> Iterator[Chart]:
    """The training losses of both models."""
    lines = []
    for number, source in enumerate(sources):
        rounds = source.history.rounds
        for model, plain in (("student", "@c0"), ("teacher", "@c1")):
            colour = plain if len(sources) == 1 else colour_of(number)
            name = model if len(sources) == 1 else short(source.name)
            dash = "solid" if len(sources) == 1 or model == "student" else "dot"
            lines.append(Line(name, [e.round for e in rounds], [e.losses.get(model) for e in rounds], colour, dash))
    lines = _labelled_once(lines)
    if any(line.points for line in lines):
        note = "Task loss on the nodes' own examples, mean over nodes."
        yield Chart(
            title="Training loss per round",
            note=note if len(sources) == 1 else f"{note} Solid: student. Dotted: teachers.",
            alt=f"Lines of the training loss over the rounds. {_ends(lines)}",
            figure=line_figure(lines, rounds_axis(1, _last_round(sources)), "round"),
        )


def distillation(sources: Sequence[Source]) -> Iterator[Chart]:
    """How much the models of a node learn from each other."""
    lines = []
    for number, source in enumerate(sources):
        rounds = source.history.rounds
        for term, (plain, dash) in _OF_TERM.items():
            weights = [entry.distillation.get(term) for entry in rounds]
            if any(weights):
                name = term if len(sources) == 1 else f"{short(source.name)} {term}"
                colour, dash = (plain, "solid") if len(sources) == 1 else (colour_of(number), dash)
                lines.append(Line(name, [entry.round for entry in rounds], weights, colour, dash))
    if lines:
        yield Chart(
            title="Distillation weights per round",
            note="Weight of each term in the loss, mean over nodes. Terms of weight 0 are left out.",
            alt=f"Lines of the weights of the distillation terms over the rounds. {_ends(lines)}",
            figure=line_figure(lines, rounds_axis(1, _last_round(sources)), "round"),
        )


def time(sources: Sequence[Source]) -> Iterator[Chart]:
    """Where the wall time of each round went; of several runs where that of each went."""
    bars: dict[str, dict[str, float]] = {}
    for source in sources:
        for entry in source.history.rounds:
            name = f"round {entry.round}" if len(sources) == 1 else short(source.name)
            bars[name] = _sum([bars.get(name, {}), split(entry.seconds)])
    total = _sum(bars.values())
    if not total:
        return
    shown = [part for part in _PARTS if total.get(part, 0.0) > 0.005 * sum(total.values())]
    height = 56 + max(_LEAST_BAR, min(_BAR, _BARS // len(bars))) * len(bars)
    layout = base_layout(height, left=12)
    layout |= {"barmode": "stack", "bargap": 0.35}
    layout["xaxis"] |= {"title": titled("seconds")}
    layout["yaxis"] |= {"autorange": "reversed", "showgrid": False, "automargin": True, "type": "category"}
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "y": [text(name) for name in bars],
            "x": [parts.get(part, 0.0) for parts in bars.values()],
            "marker": {"color": _PARTS[part][1]},
            "hoverinfo": "text",
            "hovertext": [
                f"{text(name)}<br>{_PARTS[part][0]}: {duration(parts.get(part, 0.0))}" for name, parts in bars.items()
            ],
            "textposition": "none",
        }
        for part in shown
    ]
    words = listed(f"{_PARTS[part][0]} {duration(total[part])}" for part in shown)
    yield Chart(
        title="Time per round" if len(sources) == 1 else "Time of each run",
        note="Wall time. Nodes work side by side: their part is divided in proportion to what all of them did.",
        alt=f"Bars of wall time: {words}.",
        figure={"data": data, "layout": layout},
        legend=tuple(_PARTS[part] for part in shown),
        wide=True,
    )


def _sum(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The seconds of each part, added up."""
    found: dict[str, float] = defaultdict(float)
    for each in parts:
        for part, seconds in each.items():
            found[part] += seconds
    return dict(found)


def split(seconds: dict[str, float]) -> dict[str, float]:
    """Wall seconds of a round by part: those of the nodes, which are summed over nodes, scaled to what is left."""
    if not seconds:
        return {}
    fixed = {part: seconds[part] for part in ("server", "flower")}
    of_nodes = {part: value for part, value in seconds.items() if part not in ("round", *fixed)}
    left, summed = max(0.0, seconds["round"] - sum(fixed.values())), sum(of_nodes.values())
    return fixed | {part: value * left / summed for part, value in of_nodes.items() if summed}


def _quality_lines(sources: Sequence[Source], number: int, source: Source, metric: str) -> Iterator[Line]:
    rounds = [row.number for row in source.rounds]
    if len(sources) == 1:
        boards = [(n, source.history.after(n).nodes or {}) for n in range(len(source.history.rounds) + 1)]
        for node, title in source.titles.items():
            found = [((nodes.get(node) or {}).get("teacher") or {}).get(metric) for _, nodes in boards]
            yield Line(title, [n for n, _ in boards], found, "@c1", labelled=False, faint=True)
    drawn = [
        Line(name, rounds, [source.score(row, model, metric) for row in source.rounds], colour, dash)
        for model, colour, dash, name in _models(sources, number, source)
    ]
    yield from _labelled_once(drawn)


def _models(sources: Sequence[Source], number: int, source: Source) -> Iterator[tuple[str, str, str, str]]:
    """The models of a run that are drawn: name in history.json, colour, dash, name in the plot."""
    for model, (colour, dash) in _OF_MODEL.items():
        if not any(model in row.scores for row in source.rounds):
            continue
        if len(sources) == 1:
            yield model, colour, dash, MODELS[model]
        elif model in _OF_RUNS:
            yield model, colour_of(number), _OF_RUNS[model], short(source.name)


def _labelled_once(lines: Sequence[Line]) -> list[Line]:
    """The same lines, of those with one name and colour the first labelled alone."""
    seen: set[tuple[str, str]] = set()
    found = []
    for line in lines:
        key = (line.name, line.colour)
        found.append(line._replace(labelled=bool(line.points) and key not in seen))
        if line.points:
            seen.add(key)
    return found


def _ends(lines: Sequence[Line]) -> str:
    """First and last value of each labelled line, in words."""
    parts = []
    for line in lines:
        if line.labelled and line.points:
            (first, start), (last, end) = line.points[0], line.points[-1]
            parts.append(f"{line.name}: {score(start)}" + (f" to {score(end)}" if last != first else ""))
    return f"{'; '.join(parts)}." if parts else ""


def _last_round(sources: Sequence[Source]) -> int:
    return max(len(source.history.rounds) for source in sources)


def _lower(metric: str) -> str:
    return " Less is better." if metric in LOWER_IS_BETTER else ""
