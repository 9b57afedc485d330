from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.server.aggregation import Aggregated, Sent, aggregate, norm
from fedkd_flwr.weights import capped

NUMBERS = st.lists(st.integers(-1000, 1000).map(lambda hundredths: hundredths / 100), min_size=6, max_size=6)
ROUNDS = st.lists(st.tuples(NUMBERS, st.integers(1, 100)), min_size=1, max_size=6)
WEIGHTS = st.lists(st.integers(1, 2**53), min_size=1, max_size=40)


@dataclass
class Plain:
    """An update that nothing encoded."""

    tensors: dict[str, Tensor]

    def decode(self) -> dict[str, Tensor]:
        return self.tensors


@pytest.fixture(scope="module")
def config(defaults: dict[str, Any]) -> RunConfig:
    return RunConfig.parse(defaults | {"federation.max-update-norm": 0.0, "federation.max-weight-share": 1.0})


def update(numbers: list[float]) -> dict[str, Tensor]:
    tensor = torch.tensor(numbers)
    return {"a": tensor[:4].reshape(2, 2), "b": tensor[4:]}


def together(config: RunConfig, updates: list[tuple[list[float], int]], **changes: Any) -> Aggregated:
    sent = [
        Sent(f"node-{index}", Plain(update(numbers)), examples, norm(update(numbers)))
        for index, (numbers, examples) in enumerate(updates)
    ]
    return aggregate(config.changed(federation=changes), sent)


def numbers_of(aggregated: Aggregated) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in aggregated.update.values()])


@given(rounds=ROUNDS)
def test_the_mean_is_weighted(rounds: list[tuple[list[float], int]], config: RunConfig) -> None:
    numbers = torch.tensor([numbers for numbers, _ in rounds])
    weights = torch.tensor([float(weight) for _, weight in rounds])
    expected = (numbers * weights[:, None]).sum(0) / weights.sum()
    assert torch.allclose(numbers_of(together(config, rounds)), expected, atol=1e-4)


@given(rounds=ROUNDS)
def test_nothing_is_clipped_where_no_update_is_long(rounds: list[tuple[list[float], int]], config: RunConfig) -> None:
    norms = [norm(update(numbers)) for numbers, _ in rounds]
    if min(norms):
        clipped = together(config, rounds, max_update_norm=2 * max(norms) / min(norms))
        assert torch.equal(numbers_of(clipped), numbers_of(together(config, rounds)))
        assert clipped.shortened == {}


@given(rounds=ROUNDS, limit=st.floats(1, 5), way=st.sampled_from(["examples", "uniform", "median"]))
def test_a_clipped_result_is_no_longer_than_its_limit(
    rounds: list[tuple[list[float], int]], limit: float, way: str, config: RunConfig
) -> None:
    """The median of each number is at most as long as all updates together would be."""
    middle = float(torch.tensor([norm(update(numbers)) for numbers, _ in rounds]).quantile(0.5))
    found = numbers_of(together(config, rounds, max_update_norm=limit, aggregation=way))
    most = limit * middle * (len(rounds) ** 0.5 if way == "median" else 1)
    assert float(found.norm()) <= most * 1.001 + 1e-6


@pytest.mark.parametrize(("huge", "share"), [(1e9, 0.25), (-1e9, 0.25), (-7.0, 0.25), (1e9, 0.5)])
def test_a_huge_update_is_named_and_moves_the_mean_no_further_than_the_limit(
    huge: float, share: float, config: RunConfig
) -> None:
    """Whatever the node claims to weigh: with half of the sum it counts as much as the others together."""
    honest = [([1.0] * 6, 1)] * 3
    liar = ([huge] * 6, 2**53 if share == 0.5 else 1)
    found = together(config, [*honest, liar], max_update_norm=2.0, max_weight_share=0.5)
    assert found.shortened == {"node-3": pytest.approx(abs(huge))}
    assert found.lightened.keys() == ({"node-3"} if share == 0.5 else set())
    expected = (1 - share) + share * 2 * (1 if huge > 0 else -1)
    assert torch.allclose(numbers_of(found), torch.full((6,), expected))


@given(given=WEIGHTS, share=st.floats(0.01, 1))
def test_no_weight_is_more_than_its_share_and_honest_ones_stay(given: list[int], share: float) -> None:
    """Of one or two nodes, weights stay as they are."""
    found = capped(given, share)
    if len(given) < 3:
        assert found == given
        return
    assert all(weight <= max(share, 1 / len(given)) * sum(found) * (1 + 1e-9) for weight in found)
    assert all(found[i] <= found[j] for i in range(len(given)) for j in range(len(given)) if given[i] <= given[j])
    if max(given) <= share * sum(given):
        assert found == given
    elif share * len(given) > 1:
        limit = max(found)
        assert all(weight in (one, limit) for weight, one in zip(found, given, strict=True))


@given(rounds=st.lists(NUMBERS, min_size=1, max_size=7))
def test_the_median_is_the_median_of_each_number(rounds: list[list[float]], config: RunConfig) -> None:
    expected = torch.tensor(rounds, dtype=torch.float64).quantile(0.5, dim=0)
    found = numbers_of(together(config, [(numbers, 1) for numbers in rounds], aggregation="median"))
    assert torch.allclose(found.double(), expected, atol=1e-5)


@given(honest=st.lists(NUMBERS, min_size=3, max_size=7), evil=st.sampled_from([-1e30, 1e30]))
def test_fewer_than_half_cannot_move_the_median_beyond_the_others(
    honest: list[list[float]], evil: float, config: RunConfig
) -> None:
    liars = [[evil] * 6] * ((len(honest) - 1) // 2)
    found = numbers_of(together(config, [(n, 1) for n in [*honest, *liars]], aggregation="median"))
    numbers = torch.tensor(honest)
    assert (found >= numbers.min(0).values - 1e-5).all() and (found <= numbers.max(0).values + 1e-5).all()
