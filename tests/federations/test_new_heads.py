"""New heads are fitted to the encoders of real models before the first step, once."""

from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Error, Message
from support.federation import Config, history, nodes, student
from support.loopback import LoopbackGrid, run_server

import fedkd_flwr.client.round


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The models whose heads are fitted, call by call."""
    calls: list[list[str]] = []
    fit = fedkd_flwr.client.round.fit_heads

    def listen(pair: Any, layers: Any, *arguments: Any) -> None:
        calls.append(sorted(layers))
        fit(pair, layers, *arguments)

    monkeypatch.setattr(fedkd_flwr.client.round, "fit_heads", listen)
    return calls


def run(run_config: Config, **changes: Any) -> Path:
    return run_server(LoopbackGrid(run_config(**{"linear_probe": "auto", "method": "fedkd"} | changes), nodes(2)))


@pytest.mark.parametrize(
    ("changes", "models"),
    [
        ({}, ["student", "teacher"]),
        ({"architecture": "nested"}, ["student", "teacher"]),
        ({"pooling": "model"}, ["student", "teacher"]),
        ({"shared_head": "never"}, ["student", "teacher"]),
        ({"method": "local"}, ["teacher"]),
        ({"method": "fedavg"}, ["student"]),
        ({"method": "fedavg", "linear_probe": "never"}, None),
        ({"method": "fedkd-paper"}, None),
        ({"linear_probe": "never"}, None),
    ],
)
def test_each_node_fits_its_new_heads_once(
    run_config: Config, fitted: list[list[str]], changes: dict[str, Any], models: list[str] | None
) -> None:
    run(run_config, **changes)
    assert fitted == ([models] * 2 if models else [])


def test_a_fitted_head_is_lost_with_the_round_and_fitted_again_a_private_one_is_kept(
    run_config: Config, fitted: list[list[str]]
) -> None:
    """The first round's updates reach nobody: the student is as at the start, the teachers have learnt."""
    raw = run_config(linear_probe="always", method="fedkd", num_rounds=1)
    grid = LoopbackGrid(raw, nodes(2))

    def lose(message: Message, deliver: Any) -> Message:
        reply: Message = deliver()
        if message.metadata.message_type == "train":
            return Message(Error(code=5, reason="node unavailable"), reply_to=message)
        return reply

    grid.fault = lose
    with pytest.raises(Exception, match="0 of 2 nodes"):
        run_server(grid)
    assert fitted == [["student", "teacher"]] * 2


def test_models_know_more_after_the_first_round(run_config: Config) -> None:
    """At few steps of a small rate what they know is what the heads were fitted to."""
    changes = {"num_rounds": 1, "learning_rate": 1e-5, "teacher_learning_rate": 1e-5, "architecture": "nested"}
    boards = {
        setting: history(run(run_config, linear_probe=setting, run_name=setting, **changes))["rounds"][-1]
        for setting in ("always", "never")
    }
    for who in ("student", "teachers"):
        assert boards["always"][who]["loss"] < boards["never"][who]["loss"]
    assert all(boards["always"]["losses"][who] < boards["never"]["losses"][who] for who in ("student", "teacher"))


def test_a_resumed_run_fits_nothing_again(run_config: Config, fitted: list[list[str]]) -> None:
    whole = run(run_config, run_name="whole", num_rounds=2)
    first = run(run_config, run_name="parts", num_rounds=1)
    fitted.clear()
    second = run(run_config, run_name="", resume=str(first), num_rounds=2)
    assert not fitted
    assert all(torch.equal(student(whole)[name], tensor) for name, tensor in student(second).items())
