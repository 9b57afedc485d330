"""What goes wrong at one node, and what becomes of the run: each with its outcome."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from flwr.app import Error, Message
from safetensors.torch import load_file
from support.federation import Config, assert_same, history, nodes, refreshes, round_of, short_files, student
from support.loopback import LoopbackGrid, run_server

from fedkd_flwr.errors import RunError
from fedkd_flwr.messages import TrainRequest
from fedkd_flwr.models.export import load_classifier
from fedkd_flwr.records import from_records
from fedkd_flwr.server import client_registry as membership

VICTIM = 101


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own for one node, which a test may fill or make read-only."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("mounting a disk of its own needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


def fill(disk: Path) -> None:
    with (disk / "other people's").open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(1 << 12))


@pytest.mark.parametrize(
    ("break_", "mend"),
    [
        (fill, lambda disk: (disk / "other people's").unlink()),
        (lambda disk: remount(disk, "ro"), lambda disk: remount(disk, "rw")),
    ],
    ids=["full", "read-only"],
)
def test_a_disk_that_refuses_costs_its_node_the_round_and_nothing_else(
    run_config: Config, disk: Path, break_: Callable[[Path], None], mend: Callable[[Path], None]
) -> None:
    remount(disk, "size=4m")
    places = nodes(2)
    places[1]["state-dir"] = str(disk)
    grid = LoopbackGrid(run_config(num_rounds=3, min_train_nodes=1), places)

    def fault(message: Message, deliver: Callable[[], Message]) -> Message:
        if round_of(message, VICTIM) != 2:
            return deliver()
        before = {path: path.read_bytes() for path in disk.rglob("*.safetensors")}
        break_(disk)
        reply = deliver()
        mend(disk)
        assert before == {path: path.read_bytes() for path in disk.rglob("*.safetensors")}
        return reply

    grid.fault = fault
    folder = run_server(grid)
    rounds = history(folder)["rounds"]
    assert [entry["trained"] for entry in rounds] == [2, 1, 2]
    reason = rounds[1]["failed"]["partition-1"]
    assert "cannot write the node's state to" in reason and "set state-dir to" in reason and "\n" not in reason
    (held,) = disk.glob("*/partition-1/0*/student.safetensors")
    assert all(torch.equal(tensor, student(folder)[name]) for name, tensor in load_file(held).items())


def test_a_node_that_was_away_for_three_rounds_goes_on_with_its_teacher(
    run_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "_NEWCOMER_SECONDS", 3.2)
    coarse = {"energy_start": 0.1, "energy_end": 0.1}
    grid = LoopbackGrid(run_config(num_rounds=5, min_train_nodes=1, round_timeout_seconds=3, **coarse), nodes(2))
    teachers: dict[int, dict[str, torch.Tensor]] = {}
    round = 0

    def fault(message: Message, deliver: Callable[[], Message]) -> Message | None:
        nonlocal round
        if message.metadata.message_type == "train":
            round = from_records(TrainRequest, message.content).round
        if message.metadata.dst_node_id == VICTIM:
            for path in (tmp_path / "state").glob("*/partition-1/0*/private.safetensors"):
                teachers.setdefault(round, load_file(path))
            if round in (2, 3) or (round == 4 and message.metadata.message_type == "train"):
                return None
        return deliver()

    grid.fault = fault
    rounds = history(run_server(grid))["rounds"]
    assert [entry["trained"] for entry in rounds] == [2, 1, 1, 1, 2]
    assert all(torch.equal(teachers[2][name], teachers[5][name]) for name in teachers[2])
    assert refreshes(grid, VICTIM)[-2:] == [("updates", 4, 4), ("updates", 5, 1)]


def test_a_node_that_cannot_export_its_models_is_named_and_its_scores_count(
    run_config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With embeddings a folder is larger than any state: a resumed run exports what was left out."""
    grid = LoopbackGrid(run_config(num_rounds=1), nodes(2))

    def fault(message: Message, deliver: Callable[[], Message]) -> Message:
        if message.metadata.message_type != "evaluate" or message.metadata.dst_node_id != VICTIM:
            return deliver()
        with short_files(3 << 16):
            return deliver()

    grid.fault = fault
    folder = run_server(grid)
    last = history(folder)["rounds"][-1]
    assert last["nodes"].keys() == {"partition-0", "partition-1"}
    (reason,) = last["not-exported"].values()
    assert last["not-exported"].keys() == {"partition-1"} and "large" in reason
    assert [m for m in caplog.messages if m == f"fedkd: partition-1 has not exported its models: {reason}"]
    assert load_classifier(folder / "student").config.num_hidden_layers == 2
    places = [tmp_path / "state" / history(folder)["lineage"] / node / "teacher" for node in sorted(last["nodes"])]
    assert [place.exists() for place in places] == [True, False]

    grid = LoopbackGrid(run_config(num_rounds=1, resume=str(folder)), nodes(2))
    run_server(grid)
    assert history(folder)["rounds"][-1]["not-exported"] == {}
    assert all(load_classifier(place) for place in places)


def test_a_run_whose_last_evaluation_fails_ships_its_student(run_config: Config) -> None:
    grid = LoopbackGrid(run_config(num_rounds=1), nodes(2))

    def fault(message: Message, deliver: Callable[[], Message]) -> Message:
        if message.metadata.message_type == "evaluate":
            return Message(Error(code=8, reason="ClientApp stopped responding."), reply_to=message)
        return deliver()

    grid.fault = fault
    with pytest.raises(RunError, match="0 of 2 nodes gave a good answer"):
        run_server(grid)
    folder = Path(grid.run_config["run.runs-dir"], "run")
    shipped = load_file(folder / "student/model.safetensors")
    assert_same(student(folder), {name: shipped[name] for name in student(folder)})
