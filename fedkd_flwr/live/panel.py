"""The live view of a run: a panel with its progress, its nodes and its rounds."""

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fedkd_flwr.live.picture import NodeRow, Picture, RoundRow
from fedkd_flwr.live.words import duration, megabytes

_NODES, _ROUNDS = 8, 6
"""How many rows of nodes and of rounds are shown."""

_URGENCY = {"failed": 0, "works": 1, "waits": 2, "done": 3}
_STYLE = {"failed": "red", "works": "cyan", "waits": "dim", "done": "green"}
_AT_WORK = {"join": "joins", "train": "trains", "evaluate": "scores"}


def panel(picture: Picture, title: str, log: str, began: float, now: float) -> Panel:
    """The view of a run.

    Args:
        picture: the run.
        title: what it is called.
        log: where its log lies; empty: nowhere.
        began: when it was launched, in seconds since the epoch.
        now: seconds since the epoch.
    """
    parts: list[RenderableType] = [_progress(picture)]
    if picture.rows and not picture.over:
        parts.append(_nodes(picture))
    if picture.rounds:
        parts.append(_rounds(picture))
    parts.append(Text(_foot(picture, log), style="dim"))
    left = None if picture.over else picture.seconds_left(now)
    time = duration(now - began) + (f", about {duration(left)} left" if left else "")
    return Panel(Group(*parts), title=Text(title), title_align="left", subtitle=Text(time), subtitle_align="right")


def _progress(picture: Picture) -> Table:
    """The bar and what goes on."""
    grid = Table.grid(padding=(0, 2))
    if picture.run is None:
        grid.add_row(Text(picture.step or "starting"))
        return grid
    bar = ProgressBar(total=1.0, completed=1.0 if picture.over else picture.share, width=20)
    grid.add_row(Text(f"round {picture.round} of {picture.run.num_rounds}"), bar, Text(_phase(picture)))
    return grid


def _phase(picture: Picture) -> str:
    """What goes on, in a few words."""
    if picture.over:
        return "finished"
    rows = picture.rows
    count = {doing: sum(row.doing == doing for row in rows) for doing in _URGENCY}
    if not picture.asked:
        return f"nodes join: {count['done']} are there" if rows else "waiting for nodes"
    if count["done"] + count["failed"] == len(rows):
        return "the server averages" if picture.work == "train" else "the server writes the models"
    did = "trained" if picture.work == "train" else "scored"
    failed = f", {count['failed']} failed" if count["failed"] else ""
    return f"{count['done']} of {len(rows)} have {did}, {count['works']} at work{failed}"


def _nodes(picture: Picture) -> Table:
    """The nodes that were asked, those first that need a look."""
    score = _score(picture)
    table = _table("node", "data", "", "loss\nstudent", "loss\nteacher", f"{score}\nstudent", f"{score}\nteacher")
    rows = sorted(picture.rows, key=lambda row: _URGENCY[row.doing])
    shown = {row.node for row in rows[:_NODES]}
    for row in picture.rows:
        if row.node in shown:
            answer = row.answer
            losses = answer.losses if answer else {}
            table.add_row(
                _short(row.node), _short(row.title), _state(row),
                _number(losses.get("student")), _number(losses.get("teacher")),
                _number(answer.student if answer else None), _number(answer.teacher if answer else None),
            )  # fmt: skip
    if len(rows) > _NODES:
        table.add_row(f"and {len(rows) - _NODES} more", *[""] * 6)
    return table


def _short(words: str) -> Text:
    """Words on one line, cut where they are too long."""
    return Text(words, overflow="ellipsis", no_wrap=True)


def _state(row: NodeRow) -> Text:
    words: str = row.doing
    if row.doing == "works":
        words = f"{_AT_WORK[row.work]} {row.batches}/{row.of}" if row.of else _AT_WORK[row.work]
    elif row.doing == "failed":
        words = f"failed: {row.reason}"
    return Text(words, style=_STYLE[row.doing], overflow="ellipsis", no_wrap=True)


def _rounds(picture: Picture) -> Table:
    """The newest rounds."""
    score = _score(picture)
    table = _table(
        "round", "nodes", "loss\nstudent", "loss\nteacher", f"{score}\nstudent", "own\nlabels", f"{score}\nteacher",
        "MB\nup", "MB\ndown", "s",
    )  # fmt: skip
    for _, row in sorted(picture.rounds.items())[-_ROUNDS:]:
        table.add_row(str(row.round) if row.round else "start", *_cells(row))
    return table


def _cells(row: RoundRow) -> tuple[str, ...]:
    ended, scored = row.ended, row.scored
    losses = ended.losses if ended else {}
    about = "" if row.scores_of is None else "~"
    return (
        f"{ended.trained}/{ended.asked}" if ended else "",
        _number(losses.get("student")),
        _number(losses.get("teacher")),
        _number(scored.student if scored else None, about),
        _number(scored.student_own_labels if scored else None, about),
        _number(scored.teachers if scored else None, about),
        megabytes(ended.bytes_up) if ended else "",
        megabytes(row.bytes_down) if row.bytes_down else "",
        f"{ended.seconds:.0f}" if ended else "",
    )


def _foot(picture: Picture, log: str) -> str:
    sent = f"{megabytes(picture.bytes_up)} MB up, {megabytes(picture.bytes_down)} MB down"
    partial = any(row.scores_of is not None for row in picture.rounds.values())
    parts = [sent, "~ not yet of all nodes" if partial else "", f"log: {log}" if log else ""]
    return " · ".join(part for part in parts if part)


def _score(picture: Picture) -> str:
    return picture.run.score if picture.run else ""


def _number(value: float | None, about: str = "") -> str:
    return "" if value is None else f"{about}{value:.3f}"


def _table(*headings: str) -> Table:
    """A table whose columns are numbers, but for those of words, which give way where the terminal is narrow."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    widest = {"node": 20, "data": 20, "": 32}
    for heading in headings:
        words = heading in widest
        table.add_column(
            heading, justify="left" if words else "right", no_wrap=not words, overflow="ellipsis",
            max_width=widest.get(heading),
        )  # fmt: skip
    return table
