import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.config import keys
from support.federation import nodes
from support.loopback import LoopbackGrid, run_server

from fedkd_flwr.codec import Budget, EncodedUpdate, Energy, Uniform
from fedkd_flwr.codec.settings import build_codec, codec_settings, require_budget
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import ConfigError

STUDENT = 1_000_000


def config(defaults: dict[str, Any], **changes: Any) -> RunConfig:
    return RunConfig.parse(defaults | keys(**changes))


@pytest.mark.parametrize(
    ("budget", "expected"),
    [("100x", 10_000), ("12.5x", 80_000), ("300B", 300), ("1.5kB", 1500), ("40kB/run", 10_000), ("0.5x", STUDENT)],
)
def test_a_budget_is_a_ratio_or_bytes_of_an_update_or_of_the_run(
    defaults: dict[str, Any], budget: str, expected: int
) -> None:
    run = config(defaults, codec_kind="budget", budget=budget, num_rounds=4)
    assert [codec_settings(run, round, STUDENT).budget for round in range(1, 5)] == [expected] * 4


@given(rounds=st.integers(1, 20))
def test_a_runs_budget_is_spent_to_the_byte(defaults: dict[str, Any], rounds: int) -> None:
    run = config(defaults, codec_kind="budget", budget="50kB/run", num_rounds=rounds)
    shares = [codec_settings(run, round, STUDENT).budget or 0 for round in range(1, rounds + 1)]
    assert sum(shares) == 50_000 and max(shares) - min(shares) <= 1


def test_energy_rises_from_the_first_round_to_the_last(defaults: dict[str, Any]) -> None:
    run = config(defaults, codec_kind="energy", energy_start=0.9, energy_end=0.98, num_rounds=5)
    energies = [codec_settings(run, round, STUDENT).energy for round in range(1, 6)]
    assert energies == pytest.approx([0.9, 0.92, 0.94, 0.96, 0.98])
    assert codec_settings(config(defaults, codec_kind="energy", num_rounds=1), 1, STUDENT).energy == 0.95


def test_settings_make_the_codec_that_they_describe(defaults: dict[str, Any]) -> None:
    paper = build_codec(codec_settings(config(defaults, method="fedkd-paper"), 1, STUDENT))
    assert (paper.allocation, paper.bits) == (Energy(0.95), 32)
    ours = build_codec(codec_settings(config(defaults, codec_kind="budget", budget="1kB", bits=4), 1, STUDENT))
    assert (ours.allocation, ours.bits) == (Budget(1000), 4)


@pytest.mark.parametrize("codec", ["dense", "rotated"])
def test_every_number_may_be_sent(defaults: dict[str, Any], codec: str) -> None:
    built = build_codec(codec_settings(config(defaults, codec_kind=codec, bits=4), 1, STUDENT))
    assert (built.allocation, built.bits) == (Uniform(rotated=codec == "rotated"), 4)


@pytest.mark.parametrize(
    ("codec", "bits", "message"),
    [
        ("rotated", 8, "'rotated' sends 1, 2, 3, 4 bits a number, not 8: set codec.bits to .* 0"),
        ("budget", 1, "'budget' sends 3, .* bits a number, not 1: .* or codec.kind to 'rotated'"),
    ],
)
def test_bits_that_a_codec_does_not_have(defaults: dict[str, Any], codec: str, bits: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(defaults, codec_kind=codec, bits=bits)


@pytest.mark.parametrize(("feedback", "up"), [("none", False), ("up", True), ("down", False), ("both", True)])
def test_nodes_are_told_of_their_own_direction_only(defaults: dict[str, Any], feedback: str, up: bool) -> None:
    assert codec_settings(config(defaults, error_feedback=feedback), 1, STUDENT).feedback_up is up


def test_a_budget_of_nothing_is_refused(defaults: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"'codec.budget' is '3B/run': that is less than a byte a round"):
        codec_settings(config(defaults, codec_kind="budget", budget="3B/run", num_rounds=5), 1, STUDENT)


SHARED = {f"encoder.layer.{i}.weight": torch.zeros(64, 48) for i in range(8)}


@given(
    budget=st.sampled_from(["100000x", "5000.5x", "1B", "30B", "0.05kB", "3B/run", "0.06kB/run"]),
    rounds=st.integers(1, 7),
)
def test_a_budget_below_the_names_is_refused_with_one_that_an_update_fits_in(
    defaults: dict[str, Any], budget: str, rounds: int
) -> None:
    """The budget that it names is enough, and half of that is not."""
    changes = {"codec": "budget", "num_rounds": rounds}
    least = EncodedUpdate.least_nbytes(SHARED)
    message = f"'codec.budget' is '{budget}'.* 8 tensors that travel alone take {least}. Set"
    with pytest.raises(ConfigError, match=message) as caught:
        require_budget(config(defaults, budget=budget, **changes), SHARED)
    named = str(caught.value).split()[-1]
    enough = config(defaults, budget=named, **changes)
    require_budget(enough, SHARED)
    dense = sum(4 * tensor.numel() for tensor in SHARED.values())
    for round in range(1, rounds + 1):
        settings = codec_settings(enough, round, dense)
        update = {name: torch.randn_like(tensor) for name, tensor in SHARED.items()}
        assert build_codec(settings).encode(update).nbytes <= (settings.budget or 0)
    match = re.fullmatch(r"([0-9.]+)(x|B)(/run)?", named)
    assert match is not None
    half = float(match[1]) * (2 if match[2] == "x" else 0.5)
    with pytest.raises(ConfigError, match=r"'codec.budget'"):
        require_budget(config(defaults, budget=f"{half:.1f}{match[2]}{match[3] or ''}", **changes), SHARED)


def test_a_budget_of_what_is_no_budget_is_not_looked_at(defaults: dict[str, Any]) -> None:
    require_budget(config(defaults, method="fedavg", budget="1B"), SHARED)
    require_budget(config(defaults, codec_kind="budget", budget="1B"), {})


def test_a_budget_that_is_too_small_ends_the_run_before_anything_is_trained(run_config: Callable[..., Any]) -> None:
    grid = LoopbackGrid(run_config(codec_kind="budget", budget="5B"), nodes(2))
    with pytest.raises(ConfigError, match=r"'codec.budget' is '5B', which gives a round 5 bytes: .* at least "):
        run_server(grid)
    assert {kind for _, kind, _ in grid.log} == {"query"}
