"""docs/deploy.md, command by command, and daemons that are killed."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.federation import assert_same

from e2e.machine import answers, until
from e2e.secure import SILOS, Federation, Host, commands

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_run_outlives_its_superlink(
    federation: Federation,
    config: Callable[..., dict[str, Any]],
    in_one_process: Callable[..., Mapping[str, torch.Tensor]],
) -> None:
    """SIGKILL while nodes join, train and are scored: the run goes on by itself and ends bit for bit as undisturbed."""
    settings = config(num_rounds=3, run_name="outlives")
    folder = federation.folder(settings)
    south = federation.silos["south"]
    before = {kind: south.received(kind) for kind in ("query", "train", "evaluate")}
    run_id = federation.run(settings)
    for kind, count in (("query", 1), ("train", 2), ("evaluate", 1)):
        until(lambda kind=kind, count=count: south.received(kind) >= before[kind] + count, 600, federation.logs)
        federation.server.kill("superlink")
        until(lambda: not answers(federation.port), 10)
        until(lambda: answers(federation.port), 60, federation.logs)
    assert federation.verdict(run_id) == "finished:completed", federation.logs()

    history = json.loads((folder / "history.json").read_text())
    assert [(entry["trained"], entry["failed"]) for entry in history["rounds"]] == [(2, {})] * 3
    assert_same(load_file(folder / "student/model.safetensors"), in_one_process(settings))
    said = federation.server.sh(commands("A run")[2].replace("RUN-ID", run_id))
    assert run_id in said and "fedkd: finished" in said


def test_a_run_is_stopped(federation: Federation, config: Callable[..., dict[str, Any]]) -> None:
    run_id = federation.run(config(num_rounds=100, run_name="stopped"))
    federation.server.sh(commands("A run")[3].replace("RUN-ID", run_id))
    assert federation.verdict(run_id) == "finished:stopped", federation.logs()


def test_a_killed_supernode_comes_back_with_its_teacher(
    federation: Federation,
    config: Callable[..., dict[str, Any]],
    in_one_process: Callable[..., Mapping[str, torch.Tensor]],
) -> None:
    """Killed in the second round; the restart policy outlasts the time in which its key is refused; resumed, the run
    ends as if undisturbed."""
    settings = config(num_rounds=3, run_name="returns")
    folder = federation.folder(settings)
    south = federation.silos["south"]
    before = south.received("train")
    first = federation.federate(settings)
    until(lambda: south.received("train") == before + 2, 600, federation.logs)
    south.kill("supernode")
    assert first.wait(1200) == 1, "the round was over before the node was killed"

    assert federation.federate(settings | {"run.resume": str(folder)}).wait(1200) == 0, federation.logs()
    assert_same(load_file(folder / "student/model.safetensors"), in_one_process(settings))
    lineage = json.loads((folder / "history.json").read_text())["lineage"]
    (moments,) = (south.home / "state" / lineage / "south").glob("0*/moments.safetensors")
    steps = {float(tensor) for name, tensor in load_file(moments).items() if name.endswith("/step")}
    assert steps == {3.0 * settings["train.local-steps"]}


def test_a_key_that_is_not_registered_is_turned_away(federation: Federation, tmp_path: Path) -> None:
    stranger = Host(tmp_path / "stranger", federation.launch, federation.port, "stranger")
    stranger.sh(stranger.here(commands("Certificates and keys")[1]))
    (stranger.home / "etc" / "ca.crt").write_bytes((federation.server.home / "etc" / "ca.crt").read_bytes())
    _, command, _ = commands("A silo")
    supernode = stranger.start("supernode", "bash", "-c", stranger.here(command))
    assert supernode.wait(300) != 0
    assert "Failed to activate SuperNode" in stranger.log("supernode")
    assert len(federation.server.flwr("supernode", "list", "fed")["nodes"]) == len(SILOS)
