"""SIGKILL to a node or to the server in each phase of a round: resumed, the run ends bit for bit as if undisturbed.

Each death is that of a process of its own; what a kill at each single file operation leaves is tested beside the files.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Error, Message
from support.federation import Config, assert_same_models, nodes, round_of, rows, without_seconds
from support.killed import killed_in
from support.loopback import LoopbackGrid, run_server

from fedkd_flwr.errors import RunError, StateError

VICTIM = 101

CHANGES = {"codec.kind": "budget", "codec.budget": "8x", "codec.error-feedback": "both"}

NODE = {
    "reading its data": ("query", None, "fedkd_flwr.client.dataset.load_node_data", 1, 0),
    "keeping its data encoded": ("query", None, "fedkd_flwr.data.store.flush", 1, 0),
    "loading its state": ("train", 2, "fedkd_flwr.client.state.load_file", 2, 1),
    "decoding the update": ("train", 2, "fedkd_flwr.client.progress.apply_refresh", 1, 1),
    "evaluating": ("train", 2, "fedkd_flwr.client.round.evaluate", 1, 1),
    "training": ("train", 2, "torch.optim.AdamW.step", 2, 1),
    "encoding its update": ("train", 2, "fedkd_flwr.codec.UpdateCodec.encode", 1, 1),
    "writing its state": ("train", 2, "fedkd_flwr.client.state.flush", 3, 1),
    "removing its old state": ("train", 2, "fedkd_flwr.client.state.NodeStore._sweep", 2, 2),
    "replying": ("train", 2, "fedkd_flwr.records.to_records", 1, 2),
    "keeping the last student": ("evaluate", None, "fedkd_flwr.client.state.flush", 3, 2),
    "exporting its teacher": ("evaluate", None, "transformers.PreTrainedTokenizerBase.save_pretrained", 1, 2),
    "scoring the last student": ("evaluate", None, "fedkd_flwr.client.round.evaluate", 1, 2),
}
"""The message in which a node dies, its round of training; the function, at which entry; the round that its disk then
holds."""

SERVER = {
    "waiting for nodes": (0, "fedkd_flwr.server.client_registry.Membership.present", 1),
    "making its folder": (0, "fedkd_flwr.server.run_folder.RunFolder.checkpoint", 1),
    "sending the first student": (1, "fedkd_flwr.tracking.traffic_log.Ledger.add", 1),
    "about to send": (2, "fedkd_flwr.tracking.traffic_log.Ledger.add", 1),
    "sending": (2, "support.loopback.LoopbackGrid._deliver", 2),
    "waiting for replies": (2, "support.loopback.LoopbackGrid.pull_messages", 1),
    "taking replies": (2, "fedkd_flwr.server.received.checked", 2),
    "encoding the next update": (2, "fedkd_flwr.server.global_student.apply_refresh", 1),
    "scoring the student": (2, "fedkd_flwr.server.global_model.ServerModel.score", 1),
    "writing a checkpoint": (2, "fedkd_flwr.server.run_folder.flush", 3),
    "publishing a round": (3, "fedkd_flwr.server.run_folder.RunFolder.write_history", 1),
    "asking for the last scores": (3, "fedkd_flwr.tracking.traffic_log.Ledger.add", 1),
    "taking the last scores": (3, "fedkd_flwr.server.strategy.FedKD.aggregate_evaluate", 1),
    "exporting the student": (4, "transformers.PreTrainedTokenizerBase.save_pretrained", 1),
}
"""After how many checkpoints the server dies, the first of them made when nodes have joined; the function, at which
entry."""


@pytest.fixture(scope="module")
def undisturbed(tiny_run: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    folders = {"run.runs-dir": str(folder / "runs"), "run.state-dir": str(folder / "state")}
    return run_server(LoopbackGrid(tiny_run | CHANGES | folders, nodes(2)))


@pytest.mark.parametrize("phase", NODE)
def test_a_node_killed_in_any_phase(run_config: Config, tmp_path: Path, undisturbed: Path, phase: str) -> None:
    """The round fails, as it needs the node; its disk holds the round before, or this one once that is written."""
    kind, round, function, entry, held = NODE[phase]
    grid = LoopbackGrid(run_config(**CHANGES), nodes(2))

    def fault(message: Message, deliver: Callable[[], Message]) -> Message:
        metadata = message.metadata
        if (metadata.dst_node_id, metadata.message_type, round_of(message, VICTIM)) != (VICTIM, kind, round):
            return deliver()
        assert killed_in(function, deliver, entry)
        return Message(Error(code=8, reason="ClientApp stopped responding."), reply_to=message)

    grid.fault = fault
    with pytest.raises(RunError, match="ClientApp stopped responding"):
        run_server(grid)
    assert round_held(tmp_path / "state", "partition-1") == held
    assert_ends_as(undisturbed, run_config)


@pytest.mark.parametrize("phase", SERVER)
def test_a_server_killed_in_any_phase(run_config: Config, tmp_path: Path, undisturbed: Path, phase: str) -> None:
    checkpoints, function, entry = SERVER[phase]
    run = tmp_path / "runs" / "run"
    reached = run / "checkpoints" / f"{checkpoints:08d}" if checkpoints else tmp_path
    grid = LoopbackGrid(run_config(**CHANGES), nodes(2))
    assert killed_in(function, partial(run_server, grid), entry, once=reached.is_dir)
    assert_ends_as(undisturbed, run_config)


def round_held(state_dir: Path, node: str) -> int:
    """The round of the newest state on a node's disk; 0: there is none."""
    newest = max(state_dir.glob(f"*/{node}/0*/state.json"), default=None)
    return int(json.loads(newest.read_text())["round"]) if newest else 0


def assert_ends_as(undisturbed: Path, run_config: Config) -> None:
    """Resume the run, or start it again under its name where no node had joined."""
    stopped = Path(run_config()["run.runs-dir"], "run")
    resumed = LoopbackGrid(run_config(**CHANGES, resume=str(stopped)), nodes(2))
    if stopped.exists():
        folder = run_server(resumed)
    else:
        with pytest.raises(StateError, match="holds no run to resume"):
            run_server(resumed)
        folder = run_server(LoopbackGrid(run_config(**CHANGES), nodes(2)))

    assert_same_models(folder, undisturbed)
    assert exported(folder) == exported(undisturbed)
    found, expected = without_seconds(folder), without_seconds(undisturbed)
    for way in ("up", "down"):
        counted = sum(entry.pop(f"bytes-{way}") for entry in found["rounds"])
        assert counted == sum(int(row["bytes"]) for row in rows(folder) if row["direction"] == way)
        assert counted >= sum(entry.pop(f"bytes-{way}") for entry in expected["rounds"])
    assert found == expected


def exported(folder: Path) -> dict[str, bytes]:
    """The files of the student's folder."""
    return {path.name: path.read_bytes() for path in (folder / "student").iterdir()}
