"""A run's events in words: a line each, for output that is no terminal, and the pieces that the live view shares."""

from fedkd_flwr.live.events import (
    Answered,
    Asked,
    Event,
    Joined,
    RoundEnded,
    RunBegan,
    RunEnded,
    Scored,
    Starting,
    Warned,
)
from fedkd_flwr.live.picture import Picture

_MB = 1e6


def line(event: Event, picture: Picture) -> str:
    """What to print of an event; empty: nothing.

    Args:
        event: what happened.
        picture: the run, this event included.
    """
    match event:
        case Starting():
            return event.step
        case RunBegan():
            return f"{event.method}, rounds {event.after + 1} to {event.num_rounds}: waiting for nodes"
        case Joined():
            return f"{event.node} joined: {event.title}, {event.examples:,} training examples"
        case Asked(work="train"):
            return f"{_round(picture)}: {_nodes(len(event.nodes))} train"
        case Asked():
            return f"last scores: {_nodes(len(event.nodes))} score and export their models"
        case Answered():
            done = sum(row.doing == "done" for row in picture.rows)
            did = "trained" if picture.work == "train" else "scored"
            rest = "".join(f", {words}" for words in (losses(event.losses),) if words)
            return f"{_round(picture)}: {event.node} has {did} ({done} of {len(picture.rows)}){rest}"
        case RoundEnded():
            return (
                f"{_round(picture)} is done: {event.trained} of {event.asked} nodes, {losses(event.losses)}, "
                f"{traffic(picture)}, {duration(event.seconds)}{_left(picture, event.at)}"
            )
        case Scored():
            return scores(event, picture)
        case Warned():
            return event.text
        case RunEnded():
            return f"finished after round {event.round}"
        case _:
            return ""


def losses(found: dict[str, float]) -> str:
    """Training losses by model; empty: there are none."""
    return "training loss " + ", ".join(f"{name} {value:.3f}" for name, value in found.items()) if found else ""


def traffic(picture: Picture) -> str:
    """Bytes of the run so far."""
    return f"{megabytes(picture.bytes_up)} MB up and {megabytes(picture.bytes_down)} MB down so far"


def megabytes(size: int) -> str:
    """Bytes in MB, to the hundredth."""
    return f"{size / _MB:.2f}"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def scores(found: Scored, picture: Picture) -> str:
    """The scores of the models after a round; empty: there are none."""
    each = (
        ("student", found.student),
        ("student with own labels", found.student_own_labels),
        ("teachers", found.teachers),
    )
    parts = [f"{model} {value:.3f}" for model, value in each if value is not None]
    heading = picture.run.score if picture.run else ""
    when = f"after round {found.round}" if found.round else "before any training"
    return f"{heading} {when}: {', '.join(parts)}" if parts else ""


def _round(picture: Picture) -> str:
    return f"round {picture.round} of {picture.run.num_rounds}" if picture.run else f"round {picture.round}"


def _nodes(count: int) -> str:
    return f"{count} node" + "s" * (count != 1)


def _left(picture: Picture, now: float) -> str:
    seconds = picture.seconds_left(now)
    return f", about {duration(seconds)} left" if seconds else ""
