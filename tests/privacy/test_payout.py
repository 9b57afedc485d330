"""Error feedback sends later what the codec dropped: under the settings that dropped it, and no others."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.federation import Config, nodes
from torch import Tensor

from fedkd_flwr import tensors
from fedkd_flwr.client.client import Client
from fedkd_flwr.client.state import NodeState, NodeStore
from fedkd_flwr.codec import EncodedUpdate
from fedkd_flwr.codec.settings import codec_settings
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import ProtocolError
from fedkd_flwr.messages import Refresh, TrainReply, TrainRequest
from fedkd_flwr.privacy.payout import Terms

LINEAGE = "f" * 16
KEEPING = {"codec": "budget", "budget": "384x", "error_feedback": "both", "local_steps": 1}


@pytest.fixture
def train(wide_run: Config, tmp_path: Path) -> Callable[..., TrainReply]:
    """A round of the attacked node, under a run config of the attacker's choice."""

    def train(round: int, **changes: Any) -> TrainReply:
        node = Client(RunConfig.parse(wide_run(**changes)), nodes(2)[0])
        refresh = Refresh.of("nothing", 0)
        return node.train(TrainRequest(lineage=LINEAGE, round=round, taken=round - 1, evaluate=False, refresh=refresh))

    return train


@pytest.fixture
def wide_run(run_config: Config, wide_bert: Path) -> Config:
    return lambda **changes: run_config(**{"model.teacher": str(wide_bert), "student_layers": 1} | changes)


@pytest.fixture
def store(tmp_path: Path) -> NodeStore:
    return NodeStore(tmp_path / "state", LINEAGE, "partition-0")


def held(store: NodeStore) -> NodeState:
    state = store.load()
    assert state is not None
    return state


def share_of(owed: dict[str, Tensor], sent: dict[str, Tensor]) -> float:
    """Cosine of what was kept back and what came."""
    one, other = (torch.cat([values[name].flatten().double() for name in sorted(owed)]) for values in (owed, sent))
    return float(one @ other / (one.norm() * other.norm()))


def test_what_was_kept_back_is_not_sent_under_another_run_config(
    train: Callable[..., TrainReply], store: NodeStore
) -> None:
    """Row 7: a budget of 384x keeps nearly all of a round back; a dense run on the same lineage would collect it."""
    train(1, **KEEPING)
    before = held(store)
    owed = dict(before.residual)
    assert tensors.dense_bytes(owed) > 0 and max(float(tensor.abs().max()) for tensor in owed.values()) > 0

    with pytest.raises(ProtocolError, match="another run-config"):
        train(2, **KEEPING | {"codec": "dense", "learning_rate": 1e-9, "head_learning_rate_factor": 1e-3})

    assert held(store).round == 1 and tensors.digest(held(store).residual) == tensors.digest(owed)


def test_a_run_cut_short_does_not_pay_out_what_longer_rounds_kept_back(
    train: Callable[..., TrainReply], store: NodeStore
) -> None:
    """`num-rounds` is free on resume, and a budget of the whole run follows it."""
    budget = {"budget": "150kB/run", "learning_rate": 1e-9, "head_learning_rate_factor": 1e-3}
    train(1, **KEEPING | {"budget": "150kB/run", "num_rounds": 30})
    owed = dict(held(store).residual)
    with pytest.raises(ProtocolError, match="another run-config"):
        train(2, **KEEPING | budget)

    reply = train(2, **KEEPING | {"budget": "150kB/run", "num_rounds": 2})

    sent = EncodedUpdate.from_bytes(reply.update).decode()
    assert len(reply.update) > 50_000, "the round has become much looser"
    assert abs(share_of(owed, sent)) < 0.3
    assert any("kept back" in note for note in reply.notes)


def test_a_lengthened_run_goes_on_with_what_it_owes(train: Callable[..., TrainReply], store: NodeStore) -> None:
    train(1, **KEEPING | {"num_rounds": 2})
    kept = held(store)

    owing = train(2, **KEEPING | {"num_rounds": 3})
    store.save(replace(kept, residual={}))
    owing_nothing = train(2, **KEEPING | {"num_rounds": 3})

    assert owing.notes == () and owing.update != owing_nothing.update


def test_no_round_beyond_the_last(train: Callable[..., TrainReply]) -> None:
    """Rates that fall over the rounds would turn negative after them."""
    with pytest.raises(ProtocolError, match="no round 3"):
        train(3, **KEEPING | {"num_rounds": 2})


@given(
    before=st.integers(1, 40),
    after=st.integers(1, 40),
    round=st.integers(1, 40),
    settings=st.sampled_from(
        [("budget", "8x"), ("budget", "9kB"), ("budget", "90kB/run"), ("energy", ""), ("dense", ""), ("rotated", "")]
    ),
)
def test_what_is_paid_out_is_never_under_looser_settings(
    defaults: dict[str, Any], before: int, after: int, round: int, settings: tuple[str, str]
) -> None:
    codec, budget = settings
    run = {"codec.kind": codec} | ({"codec.budget": budget} if budget else {})
    old, new = (RunConfig.parse(defaults | run | {"num-rounds": rounds}) for rounds in (before, after))
    round = min(round, after)
    then, now = codec_settings(old, min(round, before), 400_000), codec_settings(new, round, 400_000)

    if Terms.of(old).pay_out(new, round, 400_000):
        assert now.energy <= then.energy and (now.budget or 0) <= (then.budget or 0) + 1
    else:
        assert now.energy > then.energy or (now.budget or 0) > (then.budget or 0)
    assert Terms.of(old).pay_out(old, min(round, before), 400_000)
