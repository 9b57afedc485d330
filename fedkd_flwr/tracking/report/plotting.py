"""Charts of one look, as plotly takes them: plain data, so that writing a report imports no plotting library.

A colour is written `@NAME`, of `style.PALETTES`: the page puts in that of the reader's theme.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from statistics import fmean
from typing import Any, NamedTuple

Figure = dict[str, Any]
"""`data` and `layout`, as plotly's JSON has them."""

_HEIGHT, _TOP, _BOTTOM = 260, 12, 40
_LETTER, LINE = 6.4, 15
"""Width of a letter and height of a line of a label, in pixels."""


@dataclass(frozen=True)
class Chart:
    """A plot with its words.

    Attributes:
        title: what it shows.
        note: how to read it.
        alt: the same for readers who do not see it, with the main numbers.
        figure: the plot.
        legend: names and colours of its parts, where these have no names in the plot.
        wide: it takes the whole width of the page.
    """

    title: str
    note: str
    alt: str
    figure: Figure
    legend: tuple[tuple[str, str], ...] = ()
    wide: bool = False


class Line(NamedTuple):
    """A line of a plot.

    Attributes:
        name: stands at its end, and in the text of its points; it may come from anyone.
        x: values, of which those without a y are left out.
        y: values; None: not measured.
        colour: such as `@c0`.
        dash: such as `dot`.
        labelled: its name stands at its end.
        faint: it is background.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    colour: str
    dash: str = "solid"
    labelled: bool = True
    faint: bool = False

    @property
    def points(self) -> list[tuple[float, float]]:
        """Its points."""
        return [(x, y) for x, y in zip(self.x, self.y, strict=True) if y is not None]


def text(words: object) -> str:
    """Words that plotly shows as they are: it would take tags for markup."""
    return escape(str(words))


def line_figure(lines: Sequence[Line], x: Mapping[str, Any], x_name: str, digits: int = 3) -> Figure:
    """Lines over an axis, named at their ends.

    Args:
        lines: with at least one point in all.
        x: changes of the horizontal axis.
        x_name: what it counts, in the text of points.
        digits: decimals of a value in that text.
    """
    drawn = [line for line in lines if line.points]
    values = [y for line in drawn for _, y in line.points]
    low, high = min(values), max(values)
    room = (high - low or abs(high) or 1.0) * 0.08
    around = (low - room if low < 0 or low > room else 0.0, high + room)
    labelled = [line for line in drawn if line.labelled]
    logarithmic = x.get("type") == "log"
    annotations = end_labels(labelled, around, logarithmic)
    right = 14 + max((_LETTER * len(line.name) for line in labelled), default=0)
    layout = base_layout(_HEIGHT, right=right, left=46)
    layout["annotations"] = annotations
    layout["xaxis"] |= {"showgrid": False, **x}
    layout["yaxis"] |= {"range": list(around), "nticks": 6}
    return {"data": [_trace(line, x_name, digits) for line in drawn], "layout": layout}


def base_layout(height: float, right: float = 12, left: float = 46) -> dict[str, Any]:
    """What all plots have in common.

    Args:
        height: in pixels, with its margins.
        right, left: margins in pixels.
    """
    axis = {"gridcolor": "@line", "linecolor": "@line", "zeroline": False, "fixedrange": True, "ticks": ""}
    return {
        "height": height,
        "margin": {"l": left, "r": right, "t": _TOP, "b": _BOTTOM},
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', sans-serif", "size": 12, "color": "@muted"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hoverlabel": {"bgcolor": "@card", "bordercolor": "@line", "font": {"color": "@ink"}, "align": "left"},
        "hovermode": "closest",
        "dragmode": False,
        "showlegend": False,
        "xaxis": dict(axis),
        "yaxis": dict(axis),
    }


def rounds_axis(first: int, last: int) -> dict[str, Any]:
    """A horizontal axis of whole rounds."""
    room = max(0.1, 0.02 * (last - first))
    return {
        "title": titled("round"),
        "tick0": 0,
        "dtick": max(1, ceil((last - first) / 8)),
        "range": [first - room, last + room],
    }


def logarithmic_axis(title: str, low: float, high: float) -> dict[str, Any]:
    """A horizontal logarithmic axis from `low` to `high`, both above 0, with plain numbers at its ticks."""
    first, last = log10(low), log10(high)
    marks = (1, 2, 5) if last - first < 1.6 else (1,)
    ticks = [mark * 10.0**power for power in range(floor(first), ceil(last) + 1) for mark in marks]
    return {
        "type": "log",
        "range": [first, last],
        "tickvals": ticks,
        "ticktext": [f"{tick:,.10g}" for tick in ticks],
        "title": titled(title),
    }


def titled(words: str) -> dict[str, Any]:
    """The title of an axis."""
    return {"text": words, "standoff": 6, "font": {"size": 12}}


def end_labels(lines: Sequence[Line], around: tuple[float, float], logarithmic: bool = False) -> list[dict[str, Any]]:
    """Names at the ends of lines, moved apart where they would overlap.

    Args:
        lines: each with a point.
        around: range of the vertical axis.
        logarithmic: the horizontal axis is.
    """
    pixels = (_HEIGHT - _TOP - _BOTTOM) / (around[1] - around[0])
    ends = sorted((line.points[-1][1] * pixels, line.points[-1], line) for line in lines)
    return [
        {
            "x": log10(x) if logarithmic else x,
            "y": y,
            "text": text(line.name),
            "showarrow": False,
            "xanchor": "left",
            "xshift": 7,
            "yshift": place - wanted,
            "font": {"color": line.colour, "size": 12},
        }
        for place, (wanted, (x, y), line) in zip(_apart([wanted for wanted, _, _ in ends]), ends, strict=True)
    ]


def _apart(places: Sequence[float]) -> list[float]:
    """The places nearest to these, in ascending order, that are a line apart.

    Without the lines between them places may not fall: that is isotonic regression, by pooling of neighbours.
    """
    pools: list[list[float]] = []
    for number, place in enumerate(places):
        pools.append([place - number * LINE])
        while len(pools) > 1 and fmean(pools[-2]) > fmean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    level = [fmean(pool) for pool in pools for _ in pool]
    return [each + number * LINE for number, each in enumerate(level)]


def _trace(line: Line, x_name: str, digits: int) -> dict[str, Any]:
    xs, ys = zip(*line.points, strict=True)
    return {
        "type": "scatter",
        "mode": "lines" if line.faint else "lines+markers",
        "x": list(xs),
        "y": list(ys),
        "line": {"color": line.colour, "width": 1.2 if line.faint else 2.4, "dash": line.dash},
        "marker": {"color": line.colour, "size": 5},
        "opacity": 0.4 if line.faint else 1.0,
        "hoverinfo": "text",
        "text": [f"{text(line.name)}<br>{x_name} {x:.4g}: {y:.{digits}f}" for x, y in line.points],
    }
