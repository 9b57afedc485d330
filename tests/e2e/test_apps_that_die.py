"""Apps that are killed or too slow in the federation of docs/deploy.md."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import psutil
import pytest
import torch
from flwr.app import Error, Message
from safetensors.torch import load_file
from support.federation import assert_same, history, round_of

from e2e.machine import until
from e2e.secure import Federation, Host

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]

Student = Mapping[str, torch.Tensor]

SOUTH = 101
"""Its node id in one process."""

LONG = 300
"""Steps of a training that lasts long enough to be met in the middle."""

MIDDLE_SECONDS = 1.0
"""CPU time from when a ClientApp has read its state until it is in the middle of so long a training."""


def test_a_clientapp_killed_while_it_trains_costs_its_node_the_round(
    federation: Federation, config: Callable[..., dict[str, Any]], in_one_process: Callable[..., Student]
) -> None:
    """SIGKILL in the second round: the run goes on with the other node, and ends as one that lost that message."""
    settings = config(num_rounds=3, min_train_nodes=1, local_steps=LONG, run_name="clientapp")
    south = federation.silos["south"]
    run = federation.federate(settings)
    until((federation.folder(settings) / "checkpoints" / "00000002").is_dir, 300, federation.logs)
    training(south, 2).kill()
    assert run.wait(1200) == 0, federation.logs()

    rounds = history(federation.folder(settings))["rounds"]
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
    settings |= {"codec.kind": "budget", "codec.budget": "8x", "codec.error-feedback": "both"}
    south = federation.silos["south"]
    run = federation.federate(settings)
    until((federation.folder(settings) / "checkpoints" / "00000002").is_dir, 300, federation.logs)
    slow = training(south, 2)
    slow.suspend()
    until((federation.folder(settings) / "checkpoints" / "00000003").is_dir, 120, federation.logs)
    slow.resume()
    assert run.wait(1200) == 0, federation.logs()

    rounds = history(federation.folder(settings))["rounds"]
    assert [entry["trained"] for entry in rounds] == [2, 1, 2]
    assert list(rounds[1]["failed"]) == ["south"]

    def late(message: Message, deliver: Callable[[], Message]) -> Message | None:
        reply = deliver()
        return None if round_of(message, SOUTH) == 2 else reply

    assert_same(student(federation, settings), in_one_process(settings | {"federation.round-timeout-seconds": 1}, late))


@pytest.mark.parametrize("killed", ["serverapp", "superexec"])
def test_a_killed_serverapp_is_resumed(
    killed: str, federation: Federation, config: Callable[..., dict[str, Any]], in_one_process: Callable[..., Student]
) -> None:
    """SIGKILL while the nodes train: the run fails, and resumed it ends bit for bit as the undisturbed one.

    The ServerApp ends with its SuperExec, which the page's policy starts again.
    """
    settings = config(num_rounds=3, run_name=killed)
    folder = federation.folder(settings)
    run = federation.federate(settings)
    until((folder / "checkpoints" / "00000002").is_dir, 300, federation.logs)
    server = federation.server.app("superexec", "serverapp")
    assert server is not None, federation.logs()
    if killed == "superexec":
        federation.server.kill("superexec")
    else:
        server.kill()
    assert run.wait(1200) == 1, "the run was over before the ServerApp was killed"

    assert federation.federate(settings | {"run.resume": str(folder)}).wait(1200) == 0, federation.logs()
    assert [entry["trained"] for entry in history(federation.folder(settings))["rounds"]] == [2, 2, 2]
    assert_same(student(federation, settings), in_one_process(settings))


def training(silo: Host, number: int) -> psutil.Process:
    """The ClientApp that trains a silo's round of this number: it has read what the round before left."""

    def started() -> tuple[psutil.Process, float] | None:
        process = silo.app("supernode", "clientapp")
        with suppress(psutil.Error):
            if process and any(f"/{number - 1:08}/moments" in m.path for m in process.memory_maps()):
                return process, process.cpu_times().user
        return None

    process, seconds = until(started, 300, silo.logs)
    until(lambda: process.cpu_times().user > seconds + MIDDLE_SECONDS, 300, silo.logs)
    return process


def student(federation: Federation, settings: dict[str, Any]) -> Student:
    return load_file(federation.folder(settings) / "student/model.safetensors")
