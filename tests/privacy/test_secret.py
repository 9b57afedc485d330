"""A node with data of its own has a secret: who knows run-config and messages knows neither order nor dropout."""

import shutil
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Error, Message
from support.federation import Config, assert_same, assert_same_models, round_of
from support.killed import killed_at, killed_in
from support.loopback import LoopbackGrid, run_server

from fedkd_flwr.cli.clean import lineages
from fedkd_flwr.client.client import Client
from fedkd_flwr.client.state import NodeStore
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import RunError, StateError
from fedkd_flwr.messages import (
    JoinRequest,
    Refresh,
    TrainReply,
    TrainRequest,
)
from fedkd_flwr.models.build import build_pair
from fedkd_flwr.privacy.secret import Secret, secret_of

OWN = {"data-path": "silo.csv"}
LINEAGE = "e" * 16


@pytest.fixture
def silos(tweets_csv: Path, tmp_path: Path) -> list[dict[str, Any]]:
    """Two nodes with data of their own, whose owners keep no policy."""
    header, *rows = tweets_csv.read_text().splitlines(keepends=True)
    found: list[dict[str, Any]] = []
    for name, part in (("east", rows[:60]), ("west", rows[60:120])):
        (tmp_path / f"{name}.csv").write_text(header + "".join(part))
        found.append({"data-path": str(tmp_path / f"{name}.csv"), "name": name, "policy": "off"})
    return [node | {"state-dir": str(tmp_path / "state")} for node in found]


@pytest.fixture
def owned_run(run_config: Config) -> Config:
    return partial(run_config, labels="negative,positive")


@pytest.fixture
def train(owned_run: Config, silos: list[dict[str, Any]], tmp_path: Path) -> Callable[..., TrainReply]:
    """The first round of a node with a state-dir of its own."""

    def train(state: str, **changes: Any) -> TrainReply:
        node = Client(RunConfig.parse(owned_run(**changes)), silos[0] | {"state-dir": str(tmp_path / state)})
        refresh = Refresh.of("nothing", 0)
        return node.train(TrainRequest(lineage=LINEAGE, round=1, evaluate=False, refresh=refresh))

    return train


def test_a_secret_is_made_once_and_is_the_owners_alone(tmp_path: Path) -> None:
    secret = secret_of(tmp_path / "state", OWN)

    assert len(secret.key) == 32 and secret_of(tmp_path / "state", OWN) == secret
    assert secret != secret_of(tmp_path / "other", OWN)
    assert stat.S_IMODE((tmp_path / "state" / "secret").stat().st_mode) == 0o600
    assert str(secret.key) not in repr(secret)
    assert secret.words("order") != secret.words("heads")
    assert lineages(tmp_path / "state") == []


def test_a_simulated_node_has_none(tmp_path: Path) -> None:
    secret = secret_of(tmp_path, {"partition-id": 0, "num-partitions": 2})

    assert secret == Secret() and secret.words("order") == () and secret.seed("heads") is None
    assert list(tmp_path.iterdir()) == []


def test_a_kill_at_any_step_leaves_no_secret_or_a_whole_one(tmp_path: Path) -> None:
    def places() -> Iterator[Path]:
        for step in range(1, 100):
            yield tmp_path / str(step)

    for step, place in enumerate(places(), 1):
        killed = killed_at(step, partial(secret_of, place, OWN))
        left = (place / "secret").read_bytes() if (place / "secret").exists() else None
        assert left is None or secret_of(place, OWN).key == left
        assert len(secret_of(place, OWN).key) == 32
        if not killed:
            break
    assert step > 5


def test_a_damaged_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"short")
    with pytest.raises(StateError, match="damaged, it has 5 bytes of 32"):
        secret_of(tmp_path, OWN)


def test_order_follows_from_the_secret(train: Callable[..., TrainReply], tmp_path: Path) -> None:
    """Run-config, message, data and name are the same: on the code before, so was every batch."""
    first, other = train("first"), train("other")
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "first" / "secret", tmp_path / "copy" / "secret")

    assert train("copy").update == first.update != other.update


def test_what_is_private_starts_from_the_secret_and_what_is_shared_from_the_seed(
    owned_run: Config, silos: list[dict[str, Any]], tmp_path: Path
) -> None:
    replies, states = [], []
    for state in ("first", "other"):
        raw = owned_run(shared_head="never")
        node = Client(RunConfig.parse(raw), silos[0] | {"state-dir": str(tmp_path / state)})
        replies.append(node.join(JoinRequest(lineage=LINEAGE)))
        node.train(
            TrainRequest(lineage=LINEAGE, round=1, shared_head=False, evaluate=False, refresh=Refresh.of("nothing", 0))
        )
        held = NodeStore(tmp_path / state, LINEAGE, "east").load()
        assert held is not None
        states.append(held)
    config, labels = RunConfig.parse(raw), ("negative", "positive")
    simulated, seven, eight = (build_pair(config, labels, False, seed) for seed in (None, 7, 8))

    assert replies[0].encoder_digest == replies[1].encoder_digest
    assert replies[0].frozen_digest == replies[1].frozen_digest == simulated.frozen_digest
    assert_same(states[0].student, simulated.initial_shared)
    assert_same(states[1].student, seven.initial_shared)
    for name, tensor in seven.initial_private.items():
        drawn = name.endswith("head.weight")
        assert torch.equal(tensor, eight.initial_private[name]) is not drawn, name


def test_a_killed_node_goes_on_to_the_bit(owned_run: Config, silos: list[dict[str, Any]], tmp_path: Path) -> None:
    kept = secret_of(tmp_path / "state", OWN)
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "secret").write_bytes(kept.key)
    changes = {"codec": "budget", "budget": "8x", "error_feedback": "both", "linear_probe": "always"}
    undisturbed = run_server(LoopbackGrid(owned_run(**changes), silos))
    disturbed = owned_run(**changes, state_dir=str(tmp_path / "again"), run_name="disturbed")
    silos = [node | {"state-dir": str(tmp_path / "again")} for node in silos]
    grid = LoopbackGrid(disturbed, silos)

    def fault(message: Message, deliver: Callable[[], Message]) -> Message:
        if round_of(message, 101) != 2:
            return deliver()
        assert killed_in("torch.optim.AdamW.step", deliver, 2)
        return Message(Error(code=1, reason="the node died"), reply_to=message)

    grid.fault = fault
    with pytest.raises(RunError, match="the node died"):
        run_server(grid)
    resumed = run_server(LoopbackGrid(disturbed | {"run.resume": str(tmp_path / "runs" / "disturbed")}, silos))

    assert_same_models(resumed, undisturbed)
