"""Apps that are killed or too slow in the federation of docs/deploy.md, and clocks that differ."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from federation import round_of
from flwr.app import Error, Message
from safetensors.torch import load_file

from e2e.conftest import Deployment
from e2e.machine import until
from e2e.secure import Federation, Host, assert_same

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]

Student = Mapping[str, torch.Tensor]

SOUTH = 101
"""Its node id in one process."""

LONG = 300
"""Steps of a training that lasts long enough to be met in the middle."""

START_SECONDS = 5.0
"""CPU time that a ClientApp has used when it has read its data."""


def test_a_clientapp_killed_while_it_trains_costs_its_node_the_round(
    federation: Federation, config: Callable[..., dict[str, Any]], in_one_process: Callable[..., Student]
) -> None:
    """SIGKILL in the second round: the run goes on with the other node, and ends as one that lost that message."""
    settings = config(num_rounds=3, min_train_nodes=1, local_steps=LONG, run_name="clientapp")
    south = federation.silos["south"]
    run = federation.federate(settings)
    until((federation.folder(settings) / "checkpoints" / "00000001").is_dir, 300, federation.logs)
    training(south).kill()
    assert run.wait(1200) == 0, federation.logs()

    rounds = history(federation, settings)["rounds"]
    assert [entry["trained"] for entry in rounds] == [2, 1, 2]
    assert list(rounds[1]["failed"]) == ["south"]

    def lost(message: Message, deliver: Callable[[], Message]) -> Message:
        if round_of(message, SOUTH) == 2:
            return Message(Error(code=8, reason="ClientApp stopped responding."), reply_to=message)
        return deliver()

    assert_same(student(federation, settings), in_one_process(settings, lost))


def test_a_node_slower_than_the_timeout_is_not_waited_for(
    federation: Federation, config: Callable[..., dict[str, Any]], in_one_process: Callable[..., Student]
) -> None:
    """Stopped in the second round until that is over: its late reply does not count, its teacher keeps what it
    learned, and what its update lost comes with the next one."""
    settings = config(num_rounds=3, min_train_nodes=1, local_steps=LONG, run_name="slow", round_timeout_seconds=50)
    settings |= {"codec": "budget", "error-feedback": "both"}
    south = federation.silos["south"]
    run = federation.federate(settings)
    until((federation.folder(settings) / "checkpoints" / "00000001").is_dir, 300, federation.logs)
    slow = training(south)
    slow.suspend()
    until((federation.folder(settings) / "checkpoints" / "00000002").is_dir, 120, federation.logs)
    slow.resume()
    assert run.wait(1200) == 0, federation.logs()

    rounds = history(federation, settings)["rounds"]
    assert [entry["trained"] for entry in rounds] == [2, 1, 2]
    assert list(rounds[1]["failed"]) == ["south"]

    def late(message: Message, deliver: Callable[[], Message]) -> Message | None:
        reply = deliver()
        return None if round_of(message, SOUTH) == 2 else reply

    assert_same(student(federation, settings), in_one_process(settings | {"round-timeout-seconds": 1}, late))


def test_a_killed_serverapp_is_resumed(
    federation: Federation, config: Callable[..., dict[str, Any]], in_one_process: Callable[..., Student]
) -> None:
    """SIGKILL while the nodes train: the run fails, and resumed it ends bit for bit as the undisturbed one."""
    settings = config(num_rounds=3, run_name="serverapp")
    folder = federation.folder(settings)
    run = federation.federate(settings)
    until((folder / "checkpoints" / "00000001").is_dir, 300, federation.logs)
    server = federation.server.app("superexec", "serverapp")
    assert server is not None, federation.logs()
    server.kill()
    assert run.wait(1200) == 1, "the run was over before the ServerApp was killed"

    assert federation.federate(settings | {"resume": str(folder)}).wait(1200) == 0, federation.logs()
    assert [entry["trained"] for entry in history(federation, settings)["rounds"]] == [2, 2, 2]
    assert_same(student(federation, settings), in_one_process(settings))


WRONG_CLOCK = """
import datetime, os, time
SHIFT = 3600.0 * float(os.environ["HOURS"])
REAL, REAL_NS, NOW = time.time, time.time_ns, datetime.datetime.now
time.time = lambda: REAL() + SHIFT
time.time_ns = lambda: REAL_NS() + int(SHIFT * 1e9)

class Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW(tz) + datetime.timedelta(seconds=SHIFT)

datetime.datetime = Shifted
"""
"""What every Python process of a machine whose clock is wrong loads first."""


def test_clocks_of_the_machines_may_differ(
    deployment: Deployment, config_file: Callable[..., Path], tmp_path: Path
) -> None:
    """A node an hour behind, another an hour ahead: no message is too old or too young for them."""
    (tmp_path / "sitecustomize.py").write_text(WRONG_CLOCK)
    deployment.superlink()
    right = dict(deployment.env)
    for partition, hours in enumerate(("-1", "1")):
        deployment.env |= {"HOURS": hours, "PYTHONPATH": str(tmp_path)}
        state = tmp_path / f"node-{partition}"
        deployment.supernode(state.name, f'partition-id={partition} num-partitions=2 threads=1 state-dir="{state}"')
    deployment.env = right
    run = deployment.wait("dep", deployment.run(config_file()), seconds=240)
    assert run["status"] == "finished:completed", deployment.logs()
    (path,) = tmp_path.rglob("history.json")
    rounds = json.loads(path.read_text())["rounds"]
    assert [entry["trained"] for entry in rounds] == [2, 2]
    assert all(seconds >= 0 for entry in rounds for seconds in entry["seconds"].values())


def training(silo: Host) -> psutil.Process:
    """The ClientApp of a silo, once it has used more CPU time than it takes to start."""

    def busy() -> psutil.Process | None:
        process = silo.app("supernode", "clientapp")
        with suppress(psutil.Error):
            return process if process and process.cpu_times().user > START_SECONDS else None
        return None

    return until(busy, 300, silo.logs)


def history(federation: Federation, settings: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads((federation.folder(settings) / "history.json").read_text()))


def student(federation: Federation, settings: dict[str, Any]) -> Student:
    return load_file(federation.folder(settings) / "student/model.safetensors")
