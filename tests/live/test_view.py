"""What a user sees of recorded events, on a terminal and in lines."""

import re
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fedkd_flwr.live.events import (
    Answered,
    Asked,
    Event,
    Failed,
    Joined,
    RoundEnded,
    RunBegan,
    RunEnded,
    Scored,
    Starting,
    Stepped,
    Warned,
    Working,
)
from fedkd_flwr.live.panel import panel
from fedkd_flwr.live.picture import Picture
from fedkd_flwr.live.screen import shown
from fedkd_flwr.live.words import duration

BYTES = 50_000
BEGAN = 1_000.0


def round_of(number: int, nodes: Sequence[str], failed: Sequence[str], at: float) -> list[Event]:
    """A round in which each node takes 10 seconds after the other."""
    events: list[Event] = [
        Asked(at=at, round=number, work="train", nodes=tuple(nodes), bytes_down=BYTES * len(nodes) * (number > 1))
    ]
    for place, node in enumerate(nodes):
        events += [
            Working(at=at + 10 * place, node=node, work="train"),
            Stepped(at=at + 10 * place + 5, node=node, batches=4, of=8),
        ]
        end = at + 10 * place + 10
        events.append(
            Failed(at=end, node=node, reason="out of memory")
            if node in failed
            else Answered(
                at=end, node=node, losses={"teacher": 0.5, "student": 0.75}, student=0.25, teacher=0.5, bytes_up=BYTES
            )
        )
    end = at + 10 * len(nodes)
    good = len(nodes) - len(failed)
    return [
        *events,
        *(Warned(at=end, text=f"round {number}: no update from {node}: out of memory") for node in failed),
        Scored(at=end, round=number - 1, student=0.25, student_own_labels=0.375, teachers=0.5),
        RoundEnded(
            at=end, round=number, trained=good, asked=len(nodes), losses={"teacher": 0.5, "student": 0.75},
            bytes_up=BYTES * good, seconds=end - at,
        ),
    ]  # fmt: skip


def run_of(nodes: int, rounds: int, failed: Sequence[int] = ()) -> list[Event]:
    """All events of a run; some nodes fail in every round."""
    names = [f"partition-{number}" for number in range(nodes)]
    lost = [names[number] for number in failed]
    events: list[Event] = [
        Starting(at=BEGAN, step="Flower's SuperLink starts"),
        RunBegan(at=BEGAN + 10, method="fedkd", after=0, num_rounds=rounds, score="acc"),
        *(Working(at=BEGAN + 15, node=name, work="join") for name in names),
        *(Joined(at=BEGAN + 20, node=name, title=f"silo {name[-1]}", examples=1234) for name in names),
    ]
    at = BEGAN + 20
    for number in range(1, rounds + 1):
        events += round_of(number, names, lost, at)
        at += 10 * nodes
    return [
        *events,
        Asked(at=at, round=rounds, work="evaluate", nodes=tuple(names), bytes_down=BYTES * nodes),
        *(Answered(at=at + 5, node=name, student=0.5, teacher=0.75) for name in names),
        Scored(at=at + 5, round=rounds, student=0.5, teachers=0.75),
        RunEnded(at=at + 5, round=rounds),
    ]


def after(events: Sequence[Event]) -> Picture:
    picture = Picture()
    for event in events:
        picture.take(event)
    return picture


def drawn(events: Sequence[Event], width: int = 80) -> str:
    """The view after these events, as text."""
    console = Console(width=width, file=StringIO(), markup=False)
    with console.capture() as captured:
        console.print(panel(after(events), "runs/x", "runs/x.log", BEGAN, events[-1].at))
    return captured.get()


def until(events: list[Event], stop: Callable[[Event], bool]) -> list[Event]:
    """The events up to and with the first of a kind."""
    return events[: next(i for i, event in enumerate(events) if stop(event)) + 1]


def test_a_view_in_the_first_round_has_all_that_is_known() -> None:
    events = run_of(nodes=3, rounds=2, failed=[1])
    events = until(events, lambda event: isinstance(event, Stepped) and event.node == "partition-2")
    assert "failed: out of memory" in drawn(events, width=120)
    seen = drawn(events)
    for words in (
        "round 1 of 2", "1 of 3 have trained, 1 at work, 1 failed", "trains 4/8", "failed: ",
        "0.05 MB up, 0.00 MB down", "log: runs/x.log", "left",
    ):  # fmt: skip
        assert words in seen, words
    assert re.search(r"partition-0 +silo 0 +done +0\.750 +0\.500 +0\.250 +0\.500", seen)
    assert re.search(r"start +~0\.250 +~0\.500", seen) and "not yet of all nodes" in seen


def test_a_view_between_and_after_the_rounds() -> None:
    events = run_of(nodes=3, rounds=2)
    joining = drawn(until(events, lambda event: isinstance(event, Joined)))
    assert "nodes join: 1 are there" in joining and "joins" in joining
    first = drawn(until(events, lambda event: isinstance(event, RoundEnded)))
    assert "the server averages" in first and "50 s, about 30 s left" in first
    assert re.search(r"1 +3/3 +0\.750 +0\.500 +0\.15 +30\b", first)
    last = drawn(events)
    assert "finished" in last and "left" not in last and "~" not in last
    assert re.search(r"2 +3/3 .* 0\.500 +0\.750 +0\.15 +0\.15 +30\b", last)


@given(nodes=st.integers(1, 30), rounds=st.integers(1, 9), end=st.floats(0, 1), width=st.sampled_from([80, 120]))
def test_a_view_fits_a_terminal_whatever_the_run(nodes: int, rounds: int, end: float, width: int) -> None:
    events = run_of(nodes, rounds, failed=range(0, nodes, 7))
    lines = drawn(events[: 1 + int(end * (len(events) - 1))], width).splitlines()
    assert len(lines) <= 30
    assert {len(line) for line in lines} == {width}


@given(nodes=st.integers(1, 5), rounds=st.integers(1, 4), failed=st.booleans())
def test_the_time_left_is_that_of_an_even_run(nodes: int, rounds: int, failed: bool) -> None:
    """At the end of each round, where every round takes as long."""
    events = run_of(nodes, rounds, failed=[0] if failed else [])
    for index, event in enumerate(events):
        if isinstance(event, RoundEnded) and event.round < rounds:
            left = after(events[: index + 1]).seconds_left(event.at)
            assert left == pytest.approx((rounds - event.round) * 10 * nodes)


def test_lines_say_each_event_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with shown(tmp_path / "x") as tell:
        for event in run_of(nodes=2, rounds=1, failed=[1]):
            tell(event)
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("fedkd: ") for line in lines)
    assert [line.removeprefix("fedkd: ") for line in lines] == [
        f"results: {tmp_path}/x, log: {tmp_path}/x.log",
        "Flower's SuperLink starts",
        "fedkd, rounds 1 to 1: waiting for nodes",
        "partition-0 joined: silo 0, 1,234 training examples",
        "partition-1 joined: silo 1, 1,234 training examples",
        "round 1 of 1: 2 nodes train",
        "round 1 of 1: partition-0 has trained (1 of 2), training loss teacher 0.500, student 0.750",
        "round 1: no update from partition-1: out of memory",
        "acc before any training: student 0.250, student with own labels 0.375, teachers 0.500",
        "round 1 of 1 is done: 1 of 2 nodes, training loss teacher 0.500, student 0.750, "
        "0.05 MB up and 0.00 MB down so far, 20 s",
        "last scores: 2 nodes score and export their models",
        "round 1 of 1: partition-0 has scored (1 of 2)",
        "round 1 of 1: partition-1 has scored (2 of 2)",
        "acc after round 1: student 0.500, teachers 0.750",
        "finished after round 1",
    ]


def test_nothing_is_shown_where_nobody_wants_to_see(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with shown(tmp_path / "x", show=False) as tell:
        tell(RunEnded(round=1))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (59.6, "1 min 00 s"), (184, "3 min 04 s"), (7260, "2 h 01 min")]
)
def test_durations_are_said_as_people_do(seconds: float, words: str) -> None:
    assert duration(seconds) == words
