"""A run that was stopped goes on as if it never had been; what cannot go on says why."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from federation import Config, assert_same_models, history, nodes, refreshes, rows, student, without_seconds
from flwr.app import Message
from loopback import LoopbackGrid, run_server

from fedkd_flwr.errors import FedKDError, RunError, StateError
from fedkd_flwr.protocol import TrainRequest, from_records

BUDGET = {"codec": "budget", "budget": "8x", "error_feedback": "both"}


@pytest.mark.parametrize("codec", [{}, BUDGET], ids=["energy", "budget"])
@pytest.mark.parametrize("stop", ["between rounds", "replies lost", "before the last evaluation"])
def test_interrupted_and_resumed_equals_uninterrupted(
    run_config: Config, tmp_path: Path, stop: str, codec: dict[str, Any]
) -> None:
    """Bit for bit: student, teachers, scores. Flower's node ids differ, as they do in a new run.

    The ledger has every byte of the undisturbed run, and once more those of the messages that went out in vain.
    """
    changes = {"num_rounds": 4, "fraction_train": 0.67, **codec}
    straight = run_server(LoopbackGrid(run_config(run_name="straight", **changes), nodes(3)))

    grid = LoopbackGrid(run_config(run_name="stopped", **changes), nodes(3))

    class Stop(BaseException):
        pass

    reached: list[str] = []

    def power_cut(message: Message, deliver: Callable[[], Message]) -> Message:
        kind = message.metadata.message_type
        if stop == "before the last evaluation" and kind == "evaluate":
            raise Stop
        in_round_3 = kind == "train" and from_records(TrainRequest, message.content).round == 3
        if stop != "before the last evaluation" and in_round_3:
            if stop == "replies lost":
                deliver()
                reached.append(f"partition-{message.metadata.dst_node_id - 100}")
            raise Stop
        return deliver()

    grid.fault = power_cut
    with pytest.raises(Stop):
        run_server(grid)
    folder = tmp_path / "runs" / "stopped"
    raw = run_config(resume=str(folder), run_name="ignored", **changes)
    assert run_server(LoopbackGrid(raw, nodes(3), first_id=900)) == folder

    assert_same_models(folder, straight)
    expected, found = without_seconds(straight), without_seconds(folder)
    repeated = 4 if stop == "before the last evaluation" else 2
    once, ledger = (rows(run) for run in (straight, folder))
    sent = [i for i, row in enumerate(once) if (row["round"], row["direction"]) == (str(repeated), "down")]
    again = [once[i] for i in sent if once[i]["node"] not in reached]
    assert ledger == once[: sent[-1] + 1] + again + once[sent[-1] + 1 :]
    in_vain = found["rounds"][repeated - 1].pop("bytes-down") - expected["rounds"][repeated - 1].pop("bytes-down")
    assert in_vain == sum(int(row["bytes"]) for row in again) > 0
    if not reached:
        assert expected == found


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


def test_a_checkpoint_of_another_version_is_left_alone(run_config: Config) -> None:
    folder = run_server(LoopbackGrid(run_config(num_rounds=1), nodes(2)))
    newest = max((folder / "checkpoints").iterdir())
    body = newest / "state.json"
    old = body.read_text().replace('"format": 3', '"format": 2')
    body.write_text(old)
    with pytest.raises(StateError, match=rf"{newest} has format 2, this version reads 3: go on with .* or start a new"):
        run_server(LoopbackGrid(run_config(num_rounds=2, resume=str(folder)), nodes(2)))
    assert body.read_text() == old
