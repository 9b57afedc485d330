"""Who takes part: newcomers, latecomers, twins, and those that do not fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message, RecordDict
from support.federation import Config, history, nodes, other_config, refreshes, silo, student
from support.loopback import LoopbackGrid, run_server

from fedkd_flwr.errors import RunError
from fedkd_flwr.messages import TrainRequest
from fedkd_flwr.records import from_records
from fedkd_flwr.server import client_registry


def test_partial_participation_depends_on_the_seed_and_not_on_node_ids(run_config: Config) -> None:
    def trained(first_id: int, name: str, seed: int = 0) -> list[list[str]]:
        raw = run_config(num_rounds=6, fraction_train=0.4, min_train_nodes=1, run_name=name, seed=seed)
        grid = LoopbackGrid(raw, nodes(4), first_id)
        run_server(grid)
        partition = {node_id: str(node["partition-id"]) for node_id, node in grid.nodes.items()}
        return [
            sorted(
                partition[node_id] for node_id, kind, content in grid.log if kind == "train" and number(content) == r
            )
            for r in range(1, 7)
        ]

    def number(content: RecordDict) -> int:
        return from_records(TrainRequest, content).round

    first = trained(100, "a")
    assert all(len(round) == 2 for round in first)
    assert first == trained(7, "b") != trained(100, "c", seed=1)


def test_a_node_that_comes_late_and_is_far_behind_gets_a_snapshot(run_config: Config) -> None:
    """Factors of a tiny model are hardly smaller than it, so that two updates outweigh a snapshot."""
    grid = LoopbackGrid(run_config(num_rounds=4, energy_start=0.99, energy_end=0.99), nodes(2))
    late = {"partition-id": 1, "num-partitions": 2, "name": "late"}

    def arrives_in_round_4(message: Message, deliver: Callable[[], Message]) -> Message:
        if message.metadata.message_type == "train" and from_records(TrainRequest, message.content).round == 3:
            grid.nodes[500] = late
        return deliver()

    grid.fault = arrives_in_round_4
    folder = run_server(grid)
    assert refreshes(grid, 500)[0] == ("snapshot", 3, 1)
    assert history(folder)["rounds"][3]["trained"] == 3


def test_a_student_that_differs_at_the_start_is_replaced(
    run_config: Config, tiny_bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A node whose digest differs, here by another seed, gets a snapshot and the log says why."""
    raw = run_config()
    grid = LoopbackGrid(raw, nodes(2))
    grid.fault = other_config(grid, 101, seed=1)
    run_server(grid)
    assert refreshes(grid, 100)[0] == ("nothing", 0, 0)
    assert refreshes(grid, 101)[0] == ("snapshot", 0, 1)
    assert "partition-1 holds a student" in caplog.text and "gets a snapshot" in caplog.text


def test_too_few_nodes_is_an_error_after_the_wait(run_config: Config) -> None:
    with pytest.raises(RunError, match=r"1 nodes can take part, federation.min-train-nodes is 3 \(waited \d+ s"):
        run_server(LoopbackGrid(run_config(min_train_nodes=3), nodes(1)))


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (
            {"data-path": "/data/absent.csv"},
            r"there is no file at its data-path \(its own log says more",
        ),
        ({"data-path": "/data/absent.csv", "precision": "fp16"}, "run.precision is 'fp16' but the device is a CPU"),
        ({"partition-id": 1, "num-partitions": 2, "teacher": "/models/absent"}, "model '/models/absent': there is no"),
        ({"partition-id": 1, "num-partitions": 2, "seed": 3}, "node-config key 'seed' is unknown"),
    ],
)
def test_nodes_that_refuse_say_who_they_are_and_why(run_config: Config, wrong: dict[str, Any], problem: str) -> None:
    with pytest.raises(
        RunError, match=rf"1 nodes can take part, federation.min-train-nodes is 2; node north: {problem}"
    ):
        run_server(
            LoopbackGrid(
                run_config(device="cpu", labels="negative,neutral,positive"),
                [*nodes(1), {"name": "north", "policy": "off"} | wrong],
            )
        )


def test_two_nodes_of_one_name_are_refused(run_config: Config) -> None:
    twins = [{"partition-id": 0, "num-partitions": 2}] * 2
    with pytest.raises(RunError, match="two nodes are called partition-0"):
        run_server(LoopbackGrid(run_config(), twins))


def test_labels_must_be_the_same_everywhere_where_the_head_is_always_shared(run_config: Config, tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_text(
        "text,label\n" + "\n".join(f"a tweet number {i},{'negative' if i % 2 else 'neutral'}" for i in range(9))
    )
    node = silo("own", own, tmp_path / "own", labels="negative,neutral")
    with pytest.raises(
        RunError,
        match=r"partition-0 has the labels .*; this run has negative, neutral: set the run-config key 'data.labels'",
    ):
        run_server(LoopbackGrid(run_config(shared_head="always"), [*nodes(1), node]))


def test_a_node_with_its_own_file_takes_part(run_config: Config, tweets_csv: Path, tmp_path: Path) -> None:
    silos = [silo(name, tweets_csv, tmp_path / name) for name in ("north", "south")]
    raw = run_config(num_rounds=1, labels="negative,neutral,positive")
    entry = history(run_server(LoopbackGrid(raw, silos)))["rounds"][0]
    assert entry["trained"] == 2 and entry["nodes"].keys() == {"north", "south"}


def test_a_twin_that_comes_later_is_refused_and_the_first_one_is_told_why(
    run_config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    """Either may be the one that was meant: the second takes the place, and the first is refused when it speaks."""
    grid = LoopbackGrid(run_config(num_rounds=4), nodes(2))

    def twin_comes(message: Message, deliver: Callable[[], Message]) -> Message:
        if message.metadata.message_type == "train" and from_records(TrainRequest, message.content).round == 1:
            grid.nodes[500] = grid.nodes[101]
        return deliver()

    grid.fault = twin_comes
    run_server(grid)
    assert "node 101 cannot take part: two nodes are called partition-1" in caplog.text
    assert len(refreshes(grid, 500)) == 4 and len(refreshes(grid, 101)) == 1


def test_a_node_that_restarts_under_a_new_id_goes_on_with_its_state(
    run_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flower gives a restarted SuperNode a new id and keeps the old one online for a while, in which it is silent."""
    monkeypatch.setattr(client_registry, "_NEWCOMER_SECONDS", 1.0)
    grid = LoopbackGrid(run_config(num_rounds=3), nodes(2))

    def restarts(message: Message, deliver: Callable[[], Message]) -> Message | None:
        if message.metadata.message_type == "train" and from_records(TrainRequest, message.content).round == 1:
            grid.nodes[500] = grid.nodes[101]
        dead = message.metadata.dst_node_id == 101 and 500 in grid.nodes and grid.log[-1][1] == "query"
        return None if dead else deliver()

    grid.fault = restarts
    straight = student(run_server(LoopbackGrid(run_config(num_rounds=3, run_name="straight"), nodes(2))))
    folder = run_server(grid)
    assert [entry["trained"] for entry in history(folder)["rounds"]] == [2, 2, 2]
    assert all(torch.equal(tensor, straight[name]) for name, tensor in student(folder).items())
