"""Messages of a round through the real apps: what is sent, what is dropped, what is counted."""

import csv
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message
from safetensors.torch import load_file
from support.federation import Change, Config, assert_same, history, nodes, refreshes, student, tamper
from support.loopback import LoopbackGrid, run_server

from fedkd_flwr.codec import EncodedUpdate
from fedkd_flwr.errors import RunError
from fedkd_flwr.messages import TrainReply, TrainRequest
from fedkd_flwr.records import from_records
from fedkd_flwr.server.aggregation import norm
from fedkd_flwr.tracking.history import History


def test_a_node_that_keeps_up_gets_nothing_first_and_then_one_update_a_round(run_config: Config) -> None:
    grid = LoopbackGrid(run_config(num_rounds=3), nodes(2))
    run_server(grid)
    for node_id in grid.nodes:
        assert refreshes(grid, node_id) == [("nothing", 0, 0), ("updates", 1, 1), ("updates", 2, 1), ("updates", 3, 1)]


def test_every_node_ends_with_exactly_the_servers_student(run_config: Config, tmp_path: Path) -> None:
    folder = run_server(LoopbackGrid(run_config(num_rounds=3), nodes(3)))
    expected = student(folder)
    states = list((tmp_path / "state").glob("*/partition-*/0*/student.safetensors"))
    assert len(states) == 3
    for path in states:
        held = load_file(path)
        assert held.keys() == expected.keys()
        assert all(torch.equal(held[name], expected[name]) for name in expected)


def test_a_node_that_sat_out_catches_up_with_the_updates_that_it_missed(run_config: Config) -> None:
    coarse = {"energy_start": 0.1, "energy_end": 0.1}
    grid = LoopbackGrid(run_config(num_rounds=6, fraction_train=0.5, min_train_nodes=1, **coarse), nodes(2))
    rounds = history(run_server(grid))["rounds"]
    assert [(entry["trained"], entry["refreshed"]) for entry in rounds] == [(1, 1)] * 5 + [(1, 2)]
    for node_id in grid.nodes:
        held = 0
        for kind, version, payloads in refreshes(grid, node_id):
            assert (kind, payloads) == (("updates", version - held) if version > held else ("nothing", 0))
            held = version
        assert held == 6
    assert any(payloads > 1 for node_id in grid.nodes for _, _, payloads in refreshes(grid, node_id))


def poisoned(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Change:
    def apply(reply: TrainReply) -> TrainReply:
        tensors = change(EncodedUpdate.from_bytes(reply.update).decode())
        return reply.model_copy(update={"update": EncodedUpdate.dense(tensors).to_bytes()})

    return apply


def damaged(reply: TrainReply) -> TrainReply:
    middle = len(reply.update) // 2
    flipped = bytes([reply.update[middle] ^ 1])
    return reply.model_copy(update={"update": reply.update[:middle] + flipped + reply.update[middle + 1 :]})


NAME = "head.weight"


@pytest.fixture(scope="module")
def of_the_others(tiny_run: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The student of a round without the third node."""
    folder = tmp_path_factory.mktemp("others")
    own = {"num-rounds": 1, "run.runs-dir": str(folder / "runs"), "run.state-dir": str(folder / "state")}
    return student(run_server(LoopbackGrid(tiny_run | own, nodes(3)[:2])))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (poisoned(lambda t: {k: v for k, v in t.items() if k != NAME}), NAME),
        (poisoned(lambda t: t | {"extra": torch.ones(1)}), "extra"),
        (poisoned(lambda t: t | {NAME: torch.ones(7, 7)}), NAME),
        (poisoned(lambda t: t | {NAME: torch.full_like(t[NAME], 1e30)}), "too long"),
        (lambda reply: reply.model_copy(update={"lineage": 16 * "0"}), "lineage 0000"),
        (lambda reply: reply.model_copy(update={"lineage": "../evil"}), "'lineage'"),
        (lambda reply: reply.model_copy(update={"losses": {"student": 1e300}}), "losses"),
        (damaged, "checksum"),
        (lambda reply: reply.model_copy(update={"update": b""}), "update"),
        (lambda reply: reply.model_copy(update={"version": reply.version + 1}), "version"),
        (lambda reply: reply.model_copy(update={"round": reply.round + 1}), "round"),
        (lambda reply: reply.model_copy(update={"node": "partition-0"}), "partition-0"),
    ],
    ids=[
        "missing",
        "extra",
        "shape",
        "huge",
        "lineage",
        "no lineage",
        "losses",
        "bit flip",
        "empty",
        "version",
        "round",
        "another's name",
    ],
)
def test_a_bad_update_is_dropped_by_name_and_the_mean_is_that_of_the_others(
    run_config: Config, of_the_others: dict[str, torch.Tensor], change: Change, named: str
) -> None:
    grid = LoopbackGrid(run_config(num_rounds=1, min_train_nodes=1), nodes(3))
    grid.fault = tamper(102, change)
    folder = run_server(grid)
    (entry,) = history(folder)["rounds"]
    assert entry["trained"] == 2 and entry["asked"] == 3
    assert named in entry["failed"]["partition-2"]
    assert_same(student(folder), of_the_others)


@pytest.mark.parametrize("defence", [{}, {"max_update_norm": 2.0}, {"aggregation": "median", "max_update_norm": 0.0}])
def test_a_huge_update_harms_little_where_the_run_defends_itself(
    run_config: Config, defence: dict[str, float | str], caplog: pytest.LogCaptureFixture
) -> None:
    """Held against the run in which every node is honest."""

    def run(name: str, huge: bool, **changes: Any) -> dict[str, torch.Tensor]:
        grid = LoopbackGrid(run_config(num_rounds=1, codec="dense", run_name=name, **changes), nodes(4))
        if huge:
            grid.fault = tamper(103, poisoned(lambda t: {n: 1e4 * tensor for n, tensor in t.items()}))
        return student(run_server(grid))

    honest = run("honest", huge=False)
    open_, defended = (
        norm({name: tensor - honest[name] for name, tensor in found.items()})
        for found in (run("open", huge=True, max_update_norm=0.0), run("defended", huge=True, **defence))
    )
    assert defended < 1e-2 * open_
    assert ("update of partition-3 is" in caplog.text) == ("aggregation" not in defence)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_update_that_is_not_finite_is_dropped(run_config: Config, value: float) -> None:
    """No encoder would make such bytes: the number is written into a float of the payload, checksum and all."""

    def write(reply: TrainReply) -> TrainReply:
        body = reply.update[:-8] + struct.pack("<f", value)
        forged = body + struct.pack("<I", zlib.crc32(body))
        assert len(forged) == len(reply.update)
        return reply.model_copy(update={"update": forged})

    grid = LoopbackGrid(run_config(num_rounds=1, min_train_nodes=1), nodes(2))
    grid.fault = tamper(101, write)
    (entry,) = history(run_server(grid))["rounds"]
    assert list(entry["failed"]) == ["partition-1"] and "holds inf or nan" in entry["failed"]["partition-1"]


def test_a_node_that_failed_is_asked_what_it_holds_and_goes_on(run_config: Config) -> None:
    """Its reply of round 2 is lost on the way: it trained, the server does not know."""
    grid = LoopbackGrid(run_config(num_rounds=4, min_train_nodes=1), nodes(2))

    def lose(message: Message, deliver: Callable[[], Message]) -> Message | None:
        reply = deliver()
        is_train = message.metadata.message_type == "train" and message.metadata.dst_node_id == 101
        return None if is_train and from_records(TrainRequest, message.content).round == 2 else reply

    grid.fault = lose
    raw = grid.run_config
    raw["federation.round-timeout-seconds"] = 1
    folder = run_server(grid)
    assert [entry["trained"] for entry in history(folder)["rounds"]] == [2, 1, 2, 2]
    assert "no answer in time" in history(folder)["rounds"][1]["failed"]["partition-1"]
    assert refreshes(grid, 101) == [
        ("nothing", 0, 0),
        ("updates", 1, 1),
        ("updates", 2, 1),
        ("updates", 3, 1),
        ("updates", 4, 1),
    ]


@pytest.mark.parametrize(("needed", "asked", "ok"), [(1, 2, True), (2, 2, False), (1, 3, False)])
def test_a_round_fails_with_fewer_good_replies_than_half_or_than_are_needed(
    run_config: Config, needed: int, asked: int, ok: bool
) -> None:
    grid = LoopbackGrid(run_config(num_rounds=1, min_train_nodes=needed), nodes(asked))
    grid.fault = tamper(101, damaged)
    if asked == 3:
        grid.fault = lambda message, deliver: tamper(101, damaged)(
            message, lambda: tamper(102, damaged)(message, deliver)
        )
    if ok:
        run_server(grid)
    else:
        match = rf"round 1: 1 of {asked} nodes.*half of them and federation.min-train-nodes = {needed}.*partition-1: .*"
        with pytest.raises(RunError, match=match + "checksum"):
            run_server(grid)


def test_a_training_message_repeated_gets_the_same_answer_and_trains_once(run_config: Config, tmp_path: Path) -> None:
    grid = LoopbackGrid(run_config(num_rounds=1), nodes(2))
    answers: list[bytes] = []

    def twice(message: Message, deliver: Callable[[], Message]) -> Message:
        first, second = deliver(), deliver()
        if message.metadata.message_type == "train":
            answers.extend(from_records(TrainReply, reply.content).update for reply in (first, second))
        return second

    grid.fault = twice
    once = student(run_server(LoopbackGrid(run_config(num_rounds=1, run_name="once"), nodes(2))))
    assert all(torch.equal(tensor, once[name]) for name, tensor in student(run_server(grid)).items())
    assert len(answers) == 4 and answers[0] == answers[1] and answers[2] == answers[3]


def test_the_ledger_adds_up_to_the_bytes_that_travelled(run_config: Config) -> None:
    grid = LoopbackGrid(run_config(num_rounds=3), nodes(2))
    folder = run_server(grid)
    with (folder / "traffic.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = history(folder)
    boards = {0: found["initial"]} | {entry["round"]: entry for entry in found["rounds"]}
    for direction in ("up", "down"):
        for round, board in boards.items():
            total = sum(
                int(row["bytes"]) for row in rows if (row["round"], row["direction"]) == (str(round), direction)
            )
            assert total == board.get(f"bytes-{direction}", 0)
    sent = sum(
        len(array.data)
        for _, _, content in grid.log
        for arrays in content.array_records.values()
        for array in arrays.values()
    )
    assert sent == sum(board["bytes-down"] for board in boards.values()) > 0
    assert all(len(arrays) == 1 for _, _, content in grid.log for arrays in content.array_records.values())


def test_the_log_ends_with_where_the_time_went(run_config: Config, caplog: pytest.LogCaptureFixture) -> None:
    run_server(LoopbackGrid(run_config(), nodes(2)))
    (line,) = [record.getMessage() for record in caplog.records if "waiting for Flower" in record.getMessage()]
    assert "in 2 rounds: server " in line and all(part in line for part in ("train", "codec", "state", "evaluate"))


def test_history_survives_its_own_json(run_config: Config) -> None:
    found = history(run_server(LoopbackGrid(run_config(num_rounds=3, evaluate_every=2), nodes(2))))
    assert [entry["student"] is not None for entry in found["rounds"]] == [False, True, True]
    again = History.from_dict(json.loads(json.dumps(found))).as_dict()
    assert again["rounds"] == found["rounds"] and again["initial"] == found["initial"]
    for entry in found["rounds"][1:]:
        for who in ("student", "teachers"):
            assert entry[who].keys() == {"accuracy", "macro-f1", "loss"}
