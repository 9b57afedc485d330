"""The pictures of docs/results/, from the results files.

    BROWSER_PATH=/usr/bin/chromium python benchmarks/plot.py

plotly draws through a Chrome or Chromium; needs the `bench` extra.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean, stdev

import learning
import traffic
from common import RESULTS, ROOT, Results, Settings, scenarios
from plotly.subplots import make_subplots

PICTURES = ROOT / "docs" / "pictures"
COLOURS = {
    "fedkd, 111 kB": "#ff7f0e",
    "fedkd, 222 kB": "#ff9896",
    "fedkd": "#d62728",
    "fedkd, 28 kB": "#ffbb78",
    "fedkd, rotated to 1 bit": "#e377c2",
    "fedkd, 111 kB, constant rates": "#1f77b4",
    "FedAvg on the teacher": "#333333",
    "FedAvg on the teacher, adjusted": "#888888",
    "FedAvg on the teacher, adjusted, same start": "#c49c6b",
    "FedAvg on the teacher, adjusted, same start, 111 kB": "#bcbd22",
    "FedAvg on the teacher, adjusted, same start, 55 kB": "#17becf",
    "FedAvg on the teacher, adjusted, same start, 28 kB": "#aec7e8",
    "FedAvg on the student": "#9467bd",
    "teachers alone": "#2ca02c",
    "teachers alone, same start": "#98df8a",
    "the paper": "#8c564b",
}
"""Of the variants that are drawn; the tables have all."""

TITLES = {
    "tweets": "tweets by source",
    "adr-iid": "ADE sentences, IID",
    "adr-dirichlet": "ADE sentences, Dirichlet 0.5",
}
Point = tuple[float, float, float, float]


def main() -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    draw(learning.VARIANTS, learning.STEPS, "round", PICTURES / "learning.png")
    draw(traffic.VARIANTS, traffic.STEPS, "MB a node, up and down", PICTURES / "traffic.png")


def draw(variants: Mapping[str, Settings], common: Settings, against: str, path: Path) -> None:
    """Students above, teachers below, a column for each scenario; bars are standard errors over the seeds."""
    results = Results(RESULTS / "methods.jsonl")
    places = {s: place for s, place in scenarios(Path()).items() if any(points(results, s, variants, common))}
    named: set[str] = set()
    figure = make_subplots(
        rows=2,
        cols=len(places),
        column_titles=[TITLES[scenario] for scenario in places],
        row_titles=["student", "teachers"],
        shared_xaxes=True,
        vertical_spacing=0.06,
    )
    for column, (scenario, place) in enumerate(places.items(), start=1):
        for row, who in enumerate(("student", "teachers"), start=1):
            for variant, settings in variants.items():
                if variant not in COLOURS:
                    continue
                whole = settings.get("method") == "fedavg"
                model = "student" if whole else who
                line = list(curve(results, scenario, variant, {**common, **settings}, model, place.metrics[0]))
                if not line:
                    continue
                first = variant not in named
                named.add(variant)
                rounds, megabytes, scores, errors = zip(*line, strict=True)
                by_round = against == "round"
                figure.add_scatter(
                    x=rounds if by_round else megabytes[-1:],
                    y=scores if by_round else scores[-1:],
                    error_y={"array": errors if by_round else errors[-1:]},
                    mode="lines+markers" if by_round else "markers",
                    line={
                        "color": COLOURS[variant],
                        "dash": "dot" if whole else "solid",
                        "width": 4 if variant == "fedkd" else 2,
                    },
                    marker={"size": 6 if by_round else 11},
                    name=variant,
                    legendgroup=variant,
                    showlegend=first,
                    row=row,
                    col=column,
                )
            figure.update_yaxes(title=place.metrics[0].replace("-", " "), row=row, col=column)
    figure.update_xaxes(title=against, row=2)
    if against != "round":
        figure.update_xaxes(type="log")
    figure.update_layout(
        template="plotly_white", font={"size": 12}, legend={"orientation": "h", "y": -0.15}, margin={"t": 40}
    )
    figure.write_image(path, width=1200, height=680, scale=1.5)


def points(results: Results, scenario: str, variants: Mapping[str, Settings], common: Settings) -> Iterator[Point]:
    """All points of a scenario."""
    for variant, settings in variants.items():
        for who in ("student", "teachers"):
            yield from curve(results, scenario, variant, {**common, **settings}, who, "loss")


def curve(results: Results, scenario: str, variant: str, settings: Settings, who: str, metric: str) -> Iterator[Point]:
    """(round, MB a node so far, mean, standard error) of the evaluated rounds."""
    found = results.of(scenario, variant, settings)
    for entries in zip(*(result.rounds for result in found), strict=True):
        values = [entry[who][metric] for entry in entries if metric in (entry[who] or ())]
        if values:
            error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
            yield entries[0]["round"], mean(e["mb"] for e in entries), mean(values), error


if __name__ == "__main__":
    main()
