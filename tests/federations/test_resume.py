"""A run that was stopped goes on as if it never had been; what cannot go on says why."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message
from support.federation import Config, assert_same_models, history, nodes, refreshes, rows, student, without_seconds
from support.loopback import LoopbackGrid, run_server

from fedkd_flwr.errors import FedKDError, RunError, StateError
from fedkd_flwr.messages import TrainRequest
from fedkd_flwr.records import from_records
from fedkd_flwr.tracking.past_run import FORMAT

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
    raw = run_config(resume=str(folder), run_name="stopped", **changes)
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
    before = files_of(folder)
    for changes, message in (
        ({"resume": str(tmp_path / "nowhere")}, "holds no run to resume: .* where the ServerApp runs, .* are: none"),
        ({"resume": str(folder.parent / "nowhere")}, f"the last runs in {folder.parent} are: {folder.name}$"),
        ({"resume": str(folder), "seed": 5}, "seed was 0, is 5"),
        ({"resume": str(folder), "run_name": "other"}, "'run.name' is 'other' but a resumed run keeps its folder"),
        ({"resume": str(folder), "num_rounds": 1}, "is finished, after round 1: nothing is left to resume"),
    ):
        with pytest.raises(FedKDError, match=message):
            run_server(LoopbackGrid(run_config(**{"num_rounds": 2, **changes}), nodes(2)))
    with pytest.raises(StateError, match="is there already"):
        run_server(LoopbackGrid(run_config(), nodes(2)))
    assert files_of(folder) == before, "a refusal changes nothing"


def test_fewer_rounds_than_are_done_are_refused(run_config: Config) -> None:
    folder = run_server(LoopbackGrid(run_config(), nodes(2)))
    with pytest.raises(FedKDError, match=r"'num-rounds' is 1 but .* has finished 2 rounds"):
        run_server(LoopbackGrid(run_config(num_rounds=1, resume=str(folder)), nodes(2)))


def test_a_start_that_fails_leaves_nothing_and_its_name_free(run_config: Config, tmp_path: Path) -> None:
    """No node is there; or those that are there cannot take part, as their data are not."""
    gone = [{"data-path": "no.csv", "labels": "a,b", "policy": "off"}] * 2
    for places, message in ((nodes(1), "1 nodes can take part"), (gone, "no file at its data-path")):
        with pytest.raises(RunError, match=message):
            run_server(LoopbackGrid(run_config(), places))
        assert not (tmp_path / "runs").exists()
    assert run_server(LoopbackGrid(run_config(num_rounds=1), nodes(2))) == tmp_path / "runs" / "run"


def test_a_resumption_that_fails_leaves_the_run_as_it_was(run_config: Config) -> None:
    folder = run_server(LoopbackGrid(run_config(num_rounds=1, energy_end=0.95), nodes(2)))
    before = files_of(folder)
    with pytest.raises(RunError, match="0 nodes can take part"):
        run_server(LoopbackGrid(run_config(num_rounds=5, energy_end=0.95, resume=str(folder)), nodes(1)))
    assert files_of(folder) == before


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_run_leads_to_its_nodes_models_and_they_to_their_run(run_config: Config, tmp_path: Path) -> None:
    folder = run_server(LoopbackGrid(run_config(num_rounds=1), nodes(2)))
    found = history(folder)
    for node, data in found["data"].items():
        link = folder / "nodes" / data["title"]
        assert link.resolve() == tmp_path / "state" / found["lineage"] / node
        assert (link / "teacher" / "model.safetensors").is_file()
        (manifest,) = link.glob("0*/state.json")
        assert json.loads(manifest.read_text())["run"] == "run"
    assert found["data"].keys() == {"partition-0", "partition-1"} and found["finished"] is True


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
    old = body.read_text().replace(f'"format": {FORMAT}', f'"format": {FORMAT - 1}')
    body.write_text(old)
    formats = f"has format {FORMAT - 1}, this version reads {FORMAT}"
    with pytest.raises(StateError, match=rf"{newest} {formats}: go on with .* or start a new"):
        run_server(LoopbackGrid(run_config(num_rounds=2, resume=str(folder)), nodes(2)))
    assert body.read_text() == old
