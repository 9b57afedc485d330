"""One HTML file out of charts and tables, which asks nothing of any other machine."""

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from fedkd_flwr.tracking.environment import version_of
from fedkd_flwr.tracking.report import figures, tables
from fedkd_flwr.tracking.report.heat_map import heat_maps
from fedkd_flwr.tracking.report.plotting import Chart
from fedkd_flwr.tracking.report.script import SCRIPT
from fedkd_flwr.tracking.report.source import Source
from fedkd_flwr.tracking.report.style import PALETTES, style
from fedkd_flwr.tracking.report.template import TEMPLATE


def charts_of(sources: Sequence[Source]) -> list[tuple[str, list[tuple[str, Chart]]]]:
    """Sections of a report, each with its charts and their names."""
    sections = [
        ("Quality", [*figures.quality(sources), *figures.cost(sources)]),
        ("Training", [*figures.losses(sources), *figures.distillation(sources)]),
        ("Traffic", list(heat_maps(sources))),
        ("Time", list(figures.time(sources))),
    ]
    return [
        (heading, [(f"{heading.lower()}-{number}", chart) for number, chart in enumerate(charts, 1)])
        for heading, charts in sections
    ]


def page(sources: Sequence[Source]) -> str:
    """The report of one run, or of several side by side, as HTML."""
    from jinja2 import Environment

    packed, of_plotly = _plotly()
    sections = charts_of(sources)
    changed, others = tables.config_rows(sources)
    rendered: str = Environment(autoescape=True).from_string(TEMPLATE).render(
        title=sources[0].name if len(sources) == 1 else f"{len(sources)} runs",
        policy="default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
        f"script-src '{_hash(SCRIPT)}' '{of_plotly}'",
        style=style(),
        sources=sources,
        kind=tables.kind_of_run(sources[0]),
        sentence=tables.sentence(sources[0]),
        tiles=tables.tiles(sources[0]),
        runs=tables.runs_table(sources),
        sections=sections,
        models_note=tables.MODELS_NOTE,
        nodes=[tables.nodes_table(source) for source in sources],
        columns=["value"] if len(sources) == 1 else [source.name for source in sources],
        config=[("Keys that differ from their defaults", changed), ("All other keys", others)],
        environment=[(source.name, list(tables.environment_rows(source))) for source in sources],
        version=version_of("fedkd-flwr"),
        palettes=_embedded(PALETTES),
        figures=_embedded({key: chart.figure for _, charts in sections for key, chart in charts}),
        plotly=packed,
        script=SCRIPT,
    )  # fmt: skip
    return rendered


@cache
def _plotly() -> tuple[str, str]:
    """The library, packed as text, and the hash by which the page lets it run."""
    from plotly.offline import get_plotlyjs

    library = get_plotlyjs()
    return base64.b64encode(gzip.compress(library.encode(), mtime=0)).decode(), _hash(library)


def _hash(script: str) -> str:
    """A script's name in a Content-Security-Policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _embedded(value: Any) -> str:
    """JSON that ends no element of a page, whatever texts it holds."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
