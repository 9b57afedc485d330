"""Protocol paths through the real apps: who is sent what, what is dropped, when a run fails, what resumes."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message, RecordDict
from loopback import LoopbackGrid, run_server
from safetensors.torch import load_file

from fedkd_flwr.codec import EncodedUpdate
from fedkd_flwr.errors import FedKDError, RunError, StateError
from fedkd_flwr.history import History
from fedkd_flwr.protocol import EvaluateRequest, TrainReply, TrainRequest, from_records, to_records

Config = Callable[..., dict[str, Any]]
Change = Callable[[TrainReply], TrainReply]


def nodes(count: int) -> list[dict[str, Any]]:
    return [{"partition-id": i, "num-partitions": count} for i in range(count)]


def history(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "history.json").read_text(), parse_constant=pytest.fail))


def student(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(max((folder / "checkpoints").iterdir()) / "student.safetensors")


def refreshes(grid: LoopbackGrid, node_id: int) -> list[tuple[str, int, int]]:
    """Kind, version and number of payloads of every refresh that a node was sent."""
    found = []
    for destination, kind, content in grid.log:
        if destination == node_id and kind != "query":
            request = from_records(TrainRequest if kind == "train" else EvaluateRequest, content)
            found.append((request.refresh.kind, request.refresh.version, len(request.refresh.payloads)))
    return found


def tamper(node_id: int, change: Change, rounds: set[int] | None = None) -> Any:
    """A fault that rewrites the training replies of one node."""

    def fault(message: Message, deliver: Callable[[], Message]) -> Message:
        reply = deliver()
        if message.metadata.dst_node_id != node_id or message.metadata.message_type != "train":
            return reply
        honest = from_records(TrainReply, reply.content)
        if rounds is not None and honest.round not in rounds:
            return reply
        return Message(to_records(change(honest)), reply_to=message)

    return fault


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
    run_server(grid)
    for node_id in grid.nodes:
        held = 0
        for kind, version, payloads in refreshes(grid, node_id):
            assert (kind, payloads) == (("updates", version - held) if version > held else ("nothing", 0))
            held = version
        assert held == 6
    assert any(payloads > 1 for node_id in grid.nodes for _, _, payloads in refreshes(grid, node_id))


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
    other = raw | {"seed": 1}

    def one_node_has_another_seed(message: Message, deliver: Callable[[], Message]) -> Message:
        grid.run_config = other if message.metadata.dst_node_id == 101 else raw
        reply = deliver()
        grid.run_config = raw
        return reply

    grid.fault = one_node_has_another_seed
    run_server(grid)
    assert refreshes(grid, 100)[0] == ("nothing", 0, 0)
    assert refreshes(grid, 101)[0] == ("snapshot", 0, 1)
    assert "partition-1 holds a student" in caplog.text and "gets a snapshot" in caplog.text


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


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (poisoned(lambda t: {k: v for k, v in t.items() if k != NAME}), NAME),
        (poisoned(lambda t: t | {"extra": torch.ones(1)}), "extra"),
        (poisoned(lambda t: t | {NAME: torch.ones(7, 7)}), NAME),
        (damaged, "checksum"),
        (lambda reply: reply.model_copy(update={"update": b""}), "update"),
        (lambda reply: reply.model_copy(update={"version": reply.version + 1}), "version"),
        (lambda reply: reply.model_copy(update={"round": reply.round + 1}), "round"),
        (lambda reply: reply.model_copy(update={"node": "partition-0"}), "partition-0"),
    ],
    ids=["missing", "extra", "shape", "bit flip", "empty", "version", "round", "another's name"],
)
def test_a_bad_update_is_dropped_by_name_and_the_mean_is_that_of_the_others(
    run_config: Config, change: Change, named: str
) -> None:
    raw = run_config(num_rounds=1, min_train_nodes=1)
    grid = LoopbackGrid(raw, nodes(3))
    grid.fault = tamper(102, change)
    folder = run_server(grid)
    (entry,) = history(folder)["rounds"]
    assert entry["trained"] == 2 and entry["asked"] == 3
    assert named in entry["failed"]["partition-2"]

    without = LoopbackGrid(raw | {"run-name": "without"}, nodes(3)[:2])
    expected = student(run_server(without))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in student(folder).items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_update_that_is_not_finite_is_dropped(run_config: Config, value: float) -> None:
    """No encoder would make such bytes: the number is written into a float of the payload, checksum and all."""
    import struct
    import zlib

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
    raw["round-timeout-seconds"] = 1
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


@pytest.mark.parametrize(("share", "ok"), [(0.5, True), (0.75, False)])
def test_a_round_fails_below_the_share_of_good_replies(run_config: Config, share: float, ok: bool) -> None:
    grid = LoopbackGrid(run_config(num_rounds=1, min_train_nodes=1, min_success_share=share), nodes(2))
    grid.fault = tamper(101, damaged)
    if ok:
        run_server(grid)
    else:
        with pytest.raises(RunError, match=r"round 1: 1 of 2 nodes.*min-success-share = 0.75.*partition-1: .*checksum"):
            run_server(grid)


def test_too_few_nodes_is_an_error_after_the_wait(run_config: Config) -> None:
    with pytest.raises(RunError, match=r"1 nodes can take part, min-train-nodes is 3 \(waited 1 s"):
        run_server(LoopbackGrid(run_config(min_train_nodes=3), nodes(1)))


def test_nodes_that_refuse_say_why(run_config: Config, tmp_path: Path) -> None:
    missing = {"name": "north", "data-path": str(tmp_path / "absent.csv")}
    with pytest.raises(RunError, match=r"1 nodes can take part, min-train-nodes is 2; .*absent\.csv"):
        run_server(LoopbackGrid(run_config(), [*nodes(1), missing]))


def test_two_nodes_of_one_name_are_refused(run_config: Config) -> None:
    twins = [{"partition-id": 0, "num-partitions": 2}] * 2
    with pytest.raises(RunError, match="two nodes are called partition-0"):
        run_server(LoopbackGrid(run_config(), twins))


def test_labels_must_be_the_same_everywhere(run_config: Config, tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_text(
        "text,label\n" + "\n".join(f"a tweet number {i},{'negative' if i % 2 else 'neutral'}" for i in range(9))
    )
    node = {"name": "own", "data-path": str(own)}
    with pytest.raises(
        RunError,
        match=r"partition-0 has the labels .*; this run has negative, neutral: set the run-config key 'labels'",
    ):
        run_server(LoopbackGrid(run_config(), [*nodes(1), node]))


def test_a_node_with_its_own_file_takes_part(run_config: Config, tweets_csv: Path) -> None:
    silos = [{"name": name, "data-path": str(tweets_csv)} for name in ("north", "south")]
    entry = history(run_server(LoopbackGrid(run_config(num_rounds=1), silos)))["rounds"][0]
    assert entry["trained"] == 2 and entry["nodes"].keys() == {"north", "south"}


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


def without_seconds(folder: Path) -> dict[str, Any]:
    found = {key: history(folder)[key] for key in ("initial", "rounds", "labels", "sizes")}
    for entry in found["rounds"]:
        entry.pop("seconds")
    return found


def teachers(state_dir: Path, lineage: str) -> dict[str, dict[str, torch.Tensor]]:
    paths = sorted((state_dir / lineage).glob("*/0*/private.safetensors"))
    return {path.parts[-3]: load_file(path) for path in paths}


BUDGET = {"codec": "budget", "budget": "8x", "error_feedback": "both"}


@pytest.mark.parametrize("codec", [{}, BUDGET], ids=["energy", "budget"])
@pytest.mark.parametrize("stop", ["between rounds", "replies lost", "before the last evaluation"])
def test_interrupted_and_resumed_equals_uninterrupted(
    run_config: Config, tmp_path: Path, stop: str, codec: dict[str, Any]
) -> None:
    """Bit for bit: student, teachers, bytes, scores. Flower's node ids differ, as they do in a new run."""
    changes = {"num_rounds": 4, "fraction_train": 0.67, "keep_lineages": 3, **codec}
    straight = run_server(LoopbackGrid(run_config(run_name="straight", **changes), nodes(3)))

    grid = LoopbackGrid(run_config(run_name="stopped", **changes), nodes(3))

    class Stop(BaseException):
        pass

    def power_cut(message: Message, deliver: Callable[[], Message]) -> Message:
        kind = message.metadata.message_type
        if stop == "before the last evaluation" and kind == "evaluate":
            raise Stop
        in_round_3 = kind == "train" and from_records(TrainRequest, message.content).round == 3
        if stop != "before the last evaluation" and in_round_3:
            if stop == "replies lost":
                deliver()
            raise Stop
        return deliver()

    grid.fault = power_cut
    with pytest.raises(Stop):
        run_server(grid)
    folder = tmp_path / "runs" / "stopped"
    raw = run_config(resume=str(folder), run_name="ignored", **changes)
    assert run_server(LoopbackGrid(raw, nodes(3), first_id=900)) == folder

    a, b = student(straight), student(folder)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    of = [teachers(tmp_path / "state", history(run)["lineage"]) for run in (straight, folder)]
    assert of[0].keys() == of[1].keys() and len(of[0]) == 3
    for node in of[0]:
        assert all(torch.equal(tensor, of[1][node][name]) for name, tensor in of[0][node].items())
    if stop != "replies lost":
        assert without_seconds(straight) == without_seconds(folder)
        assert (straight / "traffic.csv").read_text() == (folder / "traffic.csv").read_text()


def test_a_finished_run_can_be_lengthened(run_config: Config, tmp_path: Path) -> None:
    folder = run_server(LoopbackGrid(run_config(num_rounds=1, energy_end=0.95), nodes(2)))
    run_server(LoopbackGrid(run_config(num_rounds=2, energy_end=0.95, resume=str(folder)), nodes(2)))
    assert [entry["round"] for entry in history(folder)["rounds"]] == [1, 2]
    straight = run_server(LoopbackGrid(run_config(num_rounds=2, energy_end=0.95, run_name="straight"), nodes(2)))
    assert all(torch.equal(tensor, student(straight)[name]) for name, tensor in student(folder).items())


def test_resume_refuses_another_run(run_config: Config, tmp_path: Path) -> None:
    folder = run_server(LoopbackGrid(run_config(num_rounds=1), nodes(2)))
    for changes, message in (
        ({"resume": str(tmp_path / "nowhere")}, "holds no run to continue"),
        ({"resume": str(folder), "seed": 5}, "seed was 0, is 5"),
    ):
        with pytest.raises(FedKDError, match=message):
            run_server(LoopbackGrid(run_config(num_rounds=2, **changes), nodes(2)))
    with pytest.raises(StateError, match="not empty"):
        run_server(LoopbackGrid(run_config(), nodes(2)))


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


def test_a_node_that_restarts_under_a_new_id_goes_on_with_its_state(run_config: Config) -> None:
    """Flower gives a restarted SuperNode a new id and keeps the old one online for a while."""
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


def test_resume_with_another_number_of_nodes_is_refused(run_config: Config) -> None:
    """Their partitions would be other data: a teacher would be tested on what it has learnt."""
    folder = run_server(LoopbackGrid(run_config(num_rounds=1, energy_end=0.95), nodes(3)))
    raw = run_config(num_rounds=2, energy_end=0.95, resume=str(folder))
    with pytest.raises(RunError, match=r"partition-0 is one of 2 nodes, this run was started with 3"):
        run_server(LoopbackGrid(raw, nodes(2)))


def test_a_node_without_its_state_says_that_its_teacher_starts_afresh(
    run_config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = run_server(LoopbackGrid(run_config(num_rounds=1, energy_end=0.95), nodes(2)))
    (lost,) = (tmp_path / "state").glob("*/partition-1")
    shutil.rmtree(lost)
    run_server(LoopbackGrid(run_config(num_rounds=2, energy_end=0.95, resume=str(folder)), nodes(2)))
    assert "partition-1 has no state of this run: its teacher starts afresh" in caplog.text
    assert "partition-0 has no state" not in caplog.text


def test_an_update_that_was_lost_is_sent_again_with_error_feedback(run_config: Config, tmp_path: Path) -> None:
    """In round 3 the node learns nothing new: what it sends and keeps is what it kept and what was lost in round 2."""
    changes = {"num_rounds": 3, "codec": "budget", "budget": "6x", "error_feedback": "up", "min_train_nodes": 1}
    raw = run_config(round_timeout_seconds=1, **changes)
    grid = LoopbackGrid(raw, nodes(2))
    owed: dict[str, torch.Tensor] = {}
    accounted: dict[str, torch.Tensor] = {}

    def lose(message: Message, deliver: Callable[[], Message]) -> Message | None:
        if message.metadata.message_type != "train" or message.metadata.dst_node_id != 101:
            return deliver()
        round = from_records(TrainRequest, message.content).round
        grid.run_config = raw | {"learning-rate": 1e-15} if round == 3 else raw
        reply = deliver()
        grid.run_config = raw
        decoded = EncodedUpdate.from_bytes(from_records(TrainReply, reply.content).update).decode()
        (path,) = (tmp_path / "state").glob("*/partition-1/0*/residual.safetensors")
        total = {name: tensor + decoded[name] for name, tensor in load_file(path).items()}
        if round == 2:
            owed.update(total)
            return None
        accounted.update(total)
        return reply

    grid.fault = lose
    run_server(grid)
    assert accounted.keys() == owed.keys()
    for name, tensor in owed.items():
        assert torch.allclose(accounted[name], tensor, atol=1e-6), name
    assert max(float(tensor.abs().max()) for tensor in owed.values()) > 1e-3


@pytest.mark.parametrize(("budget", "limits"), [("8x", None), ("900B", [900] * 3), ("3kB/run", [1600, 1000, 625])])
def test_no_update_is_over_its_budget(run_config: Config, budget: str, limits: list[int] | None) -> None:
    front = 2.56 if budget.endswith("/run") else 1.0
    changes = {"num_rounds": 3, "codec": "budget", "budget": budget, "budget_front": front}
    folder = run_server(LoopbackGrid(run_config(**changes), nodes(2)))
    size = history(folder)["sizes"]["student-bytes"]
    with (folder / "traffic.csv").open() as file:
        rows = list(csv.DictReader(file))
    for direction in ("up", "down"):
        for round in (1, 2, 3):
            for node in ("partition-0", "partition-1"):
                key = (str(round), direction, node)
                sent = sum(int(row["bytes"]) for row in rows if (row["round"], row["direction"], row["node"]) == key)
                limit = limits[round - 1] if limits else size // 8
                assert 0.8 * limit < sent <= limit


def test_history_survives_its_own_json(run_config: Config) -> None:
    found = history(run_server(LoopbackGrid(run_config(num_rounds=3, evaluate_every=2), nodes(2))))
    assert [entry["student"] is not None for entry in found["rounds"]] == [False, True, True]
    again = History.from_dict(json.loads(json.dumps(found))).as_dict()
    assert again["rounds"] == found["rounds"] and again["initial"] == found["initial"]
    for entry in found["rounds"][1:]:
        for who in ("student", "teachers"):
            assert entry[who].keys() == {"accuracy", "macro-f1", "loss"}


def test_a_damaged_node_state_starts_afresh_and_says_so(
    run_config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = run_server(LoopbackGrid(run_config(num_rounds=1), nodes(2)))
    for path in (tmp_path / "state").glob("*/partition-1/0*/private.safetensors"):
        path.write_bytes(path.read_bytes()[:-8])
    grid = LoopbackGrid(run_config(num_rounds=2, resume=str(folder)), nodes(2))
    run_server(grid)
    assert "partition-1: " in caplog.text and "starts afresh" in caplog.text
    assert refreshes(grid, 100)[0][0] == "nothing" and refreshes(grid, 101)[0][0] in ("updates", "snapshot")


def test_a_nested_pair_runs_and_resumes_like_any_other(run_config: Config, tmp_path: Path) -> None:
    """Only trunk and exit head travel; a teacher is exported with the trunk that the server last sent."""
    changes = {"architecture": "nested", "num_rounds": 2, "energy_end": 0.95}
    straight = run_server(LoopbackGrid(run_config(run_name="straight", **changes), nodes(2)))
    changes["num_rounds"] = 1
    folder = run_server(LoopbackGrid(run_config(**changes), nodes(2)))
    changes["num_rounds"] = 2
    run_server(LoopbackGrid(run_config(resume=str(folder), **changes), nodes(2)))
    expected = student(straight)
    assert not any("layer.2." in name or "layer.3." in name for name in expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in student(folder).items())
    found = history(folder)
    exported = list((tmp_path / "state" / found["lineage"]).glob("*/teacher/model.safetensors"))
    assert len(exported) == 2
    for path in exported:
        teacher = load_file(path)
        trunk = [name for name in expected if ".layer." in name]
        assert trunk and all(torch.equal(teacher[name], expected[name]) for name in trunk)
        assert any("layer.3." in name for name in teacher)


def test_the_server_scores_the_student_on_data_of_its_own(run_config: Config, tweets_csv: Path) -> None:
    found = history(run_server(LoopbackGrid(run_config(server_test_data=f"csv:{tweets_csv}"), nodes(2))))
    assert all(0 < entry["server"]["accuracy"] <= 1 for entry in found["rounds"])


def test_uniform_and_weighted_means_differ_where_nodes_differ_in_size(
    run_config: Config, tmp_path: Path, tweets_csv: Path
) -> None:
    small = tmp_path / "small.csv"
    with tweets_csv.open(newline="") as source, small.open("w", newline="") as target:
        csv.writer(target).writerows(list(csv.reader(source))[::6])
    silos = [{"name": "large", "data-path": str(tweets_csv)}, {"name": "small", "data-path": str(small)}]
    labels = {"labels": "negative,neutral,positive"}
    by = {
        kind: student(run_server(LoopbackGrid(run_config(aggregation=kind, run_name=kind, **labels), silos)))
        for kind in ("examples", "uniform")
    }
    assert any(not torch.equal(by["examples"][name], by["uniform"][name]) for name in by["uniform"])


def test_without_distillation_the_student_is_that_of_fedavg(run_config: Config) -> None:
    """Bit for bit, whatever the teachers do beside it."""
    apart = {"teacher_kl_weight": 0.0, "student_kl_weight": 0.0, "codec": "dense"}
    fedkd = student(run_server(LoopbackGrid(run_config(run_name="fedkd", **apart), nodes(2))))
    fedavg = student(
        run_server(LoopbackGrid(run_config(run_name="avg", method="fedavg-student", codec="dense"), nodes(2)))
    )
    assert fedkd.keys() == fedavg.keys()
    assert all(torch.equal(tensor, fedavg[name]) for name, tensor in fedkd.items())


@pytest.mark.parametrize(
    ("method", "who", "layers"),
    [
        ("fedkd", {"student", "teachers"}, 2),
        ("fedkd-paper", {"student", "teachers"}, 2),
        ("fml", {"student", "teachers"}, 2),
        ("fedavg", {"student"}, 4),
        ("fedavg-student", {"student"}, 2),
        ("local", {"teachers"}, 0),
    ],
)
def test_a_method_is_which_models_learn_which_travel_and_how(
    run_config: Config, method: str, who: set[str], layers: int
) -> None:
    folder = run_server(LoopbackGrid(run_config(method=method, codec="auto", budget="8x"), nodes(2)))
    found = history(folder)
    for entry in found["rounds"]:
        assert {name for name in ("student", "teachers") if entry[name] is not None} == who
        assert entry["losses"].keys() == {name.removesuffix("s") for name in who}
    assert len({name.partition("layer.")[2][:1] for name in student(folder) if "layer." in name}) == layers
    assert (folder / "student").is_dir() == bool(layers)
    with (folder / "traffic.csv").open() as file:
        kinds = {row["kind"] for row in csv.DictReader(file)} - {"header", "empty"}
    dense = method in ("fml", "fedavg", "fedavg-student", "local")
    assert kinds <= {"dense"} if dense else kinds - {"dense"}
