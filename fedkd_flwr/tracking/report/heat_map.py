"""The chart of what each tensor took in each round, with its rank."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedkd_flwr.tracking.report.plotting import Chart, base_layout, text, titled
from fedkd_flwr.tracking.report.source import Cell, Source, Tensors
from fedkd_flwr.tracking.report.words import bytes_in_words, listed

_ROWS = 60
_ROW_PIXELS = 17
_ROUNDS_WITH_RANKS = 12
_LEAST_SHARE = 0.002
"""Tensors that take less of all bytes are one row together."""

_COMMON = frozenset({"weight", "layer", "layers", "encoder", "dense", "self", "base_model", "model"})
"""Parts of a tensor's name that say little."""

_DIRECTIONS = ("up", "down")


def heat_maps(sources: Sequence[Source]) -> Iterator[Chart]:
    """A chart for each run that has sent anything."""
    for source in sources:
        rows = _rows(source.traffic)
        if rows and source.shares:
            yield _chart(source, rows, several=len(sources) > 1)


def _chart(source: Source, rows: Mapping[str, Sequence[str]], several: bool) -> Chart:
    rounds = [entry.round for entry in source.history.rounds]
    layout = base_layout(66 + _ROW_PIXELS * len(rows), left=12)
    layout["margin"]["t"] = 26
    data: list[dict[str, Any]] = []
    largest = 1.0
    for number, direction in enumerate(_DIRECTIONS, 1):
        cells = [[_together(source.traffic[direction], names, n) for n in rounds] for names in rows.values()]
        if direction == "up":
            largest = max((cell.mean_bytes for row in cells for cell in row if cell is not None), default=1.0)
        data.append(_trace(list(rows), rounds, cells, number, largest))
        axis: dict[str, Any] = {
            "domain": [0.0, 0.49] if number == 1 else [0.51, 1.0],
            "type": "category",
            "title": titled("round"),
        }
        layout["xaxis" if number == 1 else "xaxis2"] = {**layout["xaxis"], **axis}
        layout.setdefault("annotations", []).append(
            {
                "xref": "paper", "yref": "paper", "x": axis["domain"][0], "y": 1, "xanchor": "left",
                "yanchor": "bottom", "yshift": 4, "text": direction, "showarrow": False, "font": {"size": 12},
            }
        )  # fmt: skip
    layout["yaxis"] |= {
        "autorange": "reversed", "showgrid": False, "automargin": True, "type": "category", "tickfont": {"size": 10.5},
        "tickmode": "linear", "dtick": 1,
    }  # fmt: skip
    top = sorted(rows, key=lambda name: -sum(_bytes(source.traffic["up"], tensor) for tensor in rows[name]))[:3]
    return Chart(
        title="Bytes per tensor and round" + (f", {source.name}" if several else ""),
        note="The stronger the colour, the more bytes of an update, up the mean of the nodes. Numbers are ranks.",
        alt=f"Heat map of the encoded bytes of {len(rows)} rows of tensors over {len(rounds)} rounds, up and down. "
        f"Most bytes up: {listed(top)}.",
        figure={"data": data, "layout": layout},
        wide=True,
    )


def _trace(
    names: list[str], rounds: Sequence[int], cells: Sequence[Sequence[Cell | None]], number: int, largest: float
) -> dict[str, Any]:
    """One direction. Snapshots in the other may be far larger than updates: colours end at the largest update."""
    return {
        "type": "heatmap",
        "x": [str(n) for n in rounds],
        "y": [text(name) for name in names],
        "z": [[None if cell is None else cell.mean_bytes for cell in row] for row in cells],
        "text": [[f"{cell.mean_rank:.0f}" if cell is not None and cell.mean_rank else "" for cell in r] for r in cells],
        "texttemplate": "%{text}" if len(rounds) <= _ROUNDS_WITH_RANKS else "",
        "textfont": {"size": 10, "color": "@ink"},
        "hoverinfo": "text",
        "hovertext": [
            ["" if cell is None else _hover(name, n, cell) for n, cell in zip(rounds, row, strict=True)]
            for name, row in zip(names, cells, strict=True)
        ],
        "xaxis": "x" if number == 1 else "x2",
        "yaxis": "y",
        "zmin": 0,
        "zmax": largest,
        "colorscale": [[0, "@heat0"], [1, "@heat1"]],
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
    }


def _hover(name: str, round: int, cell: Cell) -> str:
    rank = f", rank {cell.mean_rank:.1f}" if cell.mean_rank else ""
    return f"{text(name)}<br>round {round}: {bytes_in_words(cell.mean_bytes)}{rank}"


def _rows(traffic: Mapping[str, Tensors]) -> dict[str, list[str]]:
    """Name of a row -> its tensors: those that take most have one each, in the order of the wire."""
    names = list(dict.fromkeys([*traffic["up"], *traffic["down"]]))
    taken = {name: _bytes(traffic["up"], name) for name in names}
    total = sum(taken.values())
    if not total:
        return {}
    tensors = [name for name in names if not name.startswith("(")]
    large = sorted((name for name in tensors if taken[name] > _LEAST_SHARE * total), key=lambda name: -taken[name])
    large = [name for name in tensors if name in large[:_ROWS]]
    shorter = _shortened(large)
    rows = {shorter[name]: [name] for name in large}
    if small := [name for name in tensors if name not in shorter]:
        rows[f"{len(small)} smaller tensors"] = small
    return rows | {name: [name] for name in names if name.startswith("(")}


def _shortened(names: Sequence[str]) -> dict[str, str]:
    """The names without the parts that say little; as they are where two would be alike."""
    deep = [parts for name in names if len(parts := name.split(".")) > 2]
    body = deep[0][0] if deep and len({parts[0] for parts in deep}) == 1 else None
    said = {name: [part for part in name.split(".") if part not in _COMMON and part != body] for name in names}
    found = {name: ".".join(parts) or name for name, parts in said.items()}
    return found if len(set(found.values())) == len(names) else {name: name for name in names}


def _together(tensors: Tensors, names: Sequence[str], round: int) -> Cell | None:
    """What some tensors took in a round, as if they were one."""
    cells = [cell for name in names if (cell := tensors.get(name, {}).get(round)) is not None]
    if len(cells) < 2:
        return cells[0] if cells else None
    return Cell(updates=max(cell.updates for cell in cells), nbytes=sum(cell.nbytes for cell in cells))


def _bytes(tensors: Tensors, name: str) -> int:
    return sum(cell.nbytes for cell in tensors.get(name, {}).values())
