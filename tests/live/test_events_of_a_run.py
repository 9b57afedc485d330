"""A real federation tells what its history and its ledger have; a view of it is put together from that alone."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.federation import Config, nodes, rows
from support.loopback import LoopbackGrid, run_server

from fedkd_flwr.live.channel import EVENTS, followed, listening
from fedkd_flwr.live.events import Answered, Event, Failed, Scored, Stepped, Warned, Working, from_line, to_line
from fedkd_flwr.live.picture import Picture
from fedkd_flwr.tracking.finished_run import Run

ROUNDS = 3


@pytest.fixture
def told() -> list[Event]:
    return []


def federate(config: dict[str, Any], told: list[Event], clients: int = 3) -> Run:
    with listening(told.append):
        return Run.load(run_server(LoopbackGrid(config, nodes(clients))))


def pictures(told: list[Event]) -> list[Picture]:
    """The picture after each event."""
    found = []
    for end in range(1, len(told) + 1):
        picture = Picture()
        for event in told[:end]:
            picture.take(event)
        found.append(picture)
    return found


def test_the_picture_is_the_history(run_config: Config, told: list[Event]) -> None:
    run = federate(run_config(num_rounds=ROUNDS), told)
    last = pictures(told)[-1]
    assert last.over and last.share == 1 and last.round == ROUNDS
    ledger = rows(run.folder)
    for direction, told_bytes in (("up", last.bytes_up), ("down", last.bytes_down)):
        assert told_bytes == sum(int(row["bytes"]) for row in ledger if row["direction"] == direction) > 0
    for number in range(ROUNDS + 1):
        row, board = last.rounds[number], run.history.after(number)
        assert row.scored is not None and row.scores_of is None
        assert row.scored.student == (board.student or {})["accuracy"]
        assert row.scored.teachers == (board.teachers or {})["accuracy"]
        assert row.bytes_down == board.bytes_down
        assert (row.ended and row.ended.losses) == (run.history.rounds[number - 1].losses if number else None)
    assert {node.title for node in last.nodes.values()} == {data["title"] for data in run.history.data.values()}


def test_something_changes_while_a_round_goes(run_config: Config, told: list[Event]) -> None:
    """Each node is seen at work, batch by batch, and its answer counts at once: also in the first round."""
    federate(run_config(num_rounds=1), told)
    every = pictures(told)
    shares = [picture.share for picture in every]
    assert all(before <= after for before, after in pairwise(shares)) and shares[-1] == 1
    assert len({share for share in shares if 0 < share < 1}) >= 5
    scores = [picture.rounds[0].scores_of for picture in every if 0 in picture.rounds]
    assert [count for count in (1, 2, 3) if count in scores] == [1, 2, 3] and scores[-1] is None
    assert {event.node for event in told if isinstance(event, Working)} == {f"partition-{i}" for i in range(3)}
    assert {(event.batches, event.of) for event in told if isinstance(event, Stepped)} >= {(0, 3), (3, 3)}


def test_a_resumed_run_goes_on_with_what_has_travelled(run_config: Config, told: list[Event]) -> None:
    config = run_config(num_rounds=1)
    folder = federate(config, []).folder
    run = federate(config | {"num-rounds": 2, "run.resume": str(folder)}, told)
    last = pictures(told)[-1]
    assert last.run is not None and last.run.after == 1
    assert last.share == 1 and last.bytes_up == sum(entry.bytes_up for entry in run.history.rounds)


def test_a_failed_node_is_told_at_once_and_warned_of_once(run_config: Config, told: list[Event]) -> None:
    from flwr.app import Error, Message

    grid = LoopbackGrid(run_config(num_rounds=1), nodes(3))
    grid.fault = lambda message, answer: (
        Message(Error(code=100, reason="out of memory"), reply_to=message)
        if (message.metadata.message_type, message.metadata.dst_node_id) == ("train", 101)
        else answer()
    )
    with listening(told.append):
        run_server(grid)
    (failed,) = [event for event in told if isinstance(event, Failed)]
    assert (failed.node, failed.reason) == ("partition-1", "out of memory")
    assert told.index(failed) < max(told.index(event) for event in told if isinstance(event, Answered))
    assert [event.text for event in told if isinstance(event, Warned) and "out of memory" in event.text] == [
        "round 1: no update from partition-1: out of memory"
    ]


def test_events_come_whole_through_a_file(
    run_config: Config, told: list[Event], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As between the processes of a launch; a line that is none, or half of one, is passed over."""
    path = tmp_path / "events.jsonl"
    monkeypatch.setenv(EVENTS, str(path))
    with followed(path, told.append):
        with path.open("a") as file:
            file.write('no event\n{"kind": "other"}\n')
        run_server(LoopbackGrid(run_config(num_rounds=1), nodes(2)))
        with path.open("a") as file:
            file.write('{"kind": "warned", "te')
    assert [from_line(to_line(event)) for event in told] == told
    assert [event.round for event in told if isinstance(event, Scored)] == [0, 1]
    assert pictures(told)[-1].over


def test_a_run_that_nobody_watches_tells_nothing(
    run_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a file that cannot be written end it."""
    monkeypatch.setenv(EVENTS, str(tmp_path / "none" / "events.jsonl"))
    run_server(LoopbackGrid(run_config(num_rounds=1), nodes(2)))
    assert not (tmp_path / "none").exists()
