import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedkd_flwr.aggregation import Aggregation, ClippedMean, Median, WeightedMean, norm

NUMBERS = st.lists(st.integers(-1000, 1000).map(lambda hundredths: hundredths / 100), min_size=6, max_size=6)
ROUNDS = st.lists(st.tuples(NUMBERS, st.integers(1, 100)), min_size=1, max_size=6)


def update(numbers: list[float]) -> dict[str, Tensor]:
    tensor = torch.tensor(numbers)
    return {"a": tensor[:4].reshape(2, 2), "b": tensor[4:]}


def result(aggregation: Aggregation, updates: list[tuple[dict[str, Tensor], float]]) -> Tensor:
    for index, (tensors, weight) in enumerate(updates):
        aggregation.add(f"node-{index}", tensors, weight)
    return torch.cat([tensor.flatten() for tensor in aggregation.compute().values()])


@given(ROUNDS)
def test_the_mean_is_weighted(rounds: list[tuple[list[float], int]]) -> None:
    numbers = torch.tensor([numbers for numbers, _ in rounds])
    weights = torch.tensor([float(weight) for _, weight in rounds])
    expected = (numbers * weights[:, None]).sum(0) / weights.sum()
    found = result(WeightedMean(), [(update(n), w) for n, w in rounds])
    assert torch.allclose(found, expected, atol=1e-4)


@given(ROUNDS)
def test_nothing_is_clipped_where_no_update_is_long(rounds: list[tuple[list[float], int]]) -> None:
    updates = [(update(n), float(w)) for n, w in rounds]
    longest = max(norm(u) for u, _ in updates)
    shortest = min(norm(u) for u, _ in updates)
    limit = 2 * longest / shortest if shortest else 1e30
    clipped = ClippedMean(limit)
    if shortest:
        assert torch.equal(result(clipped, updates), result(WeightedMean(), updates))
        assert clipped.shortened() == {}


@given(ROUNDS, st.floats(1, 5))
def test_a_clipped_mean_is_no_longer_than_its_limit(rounds: list[tuple[list[float], int]], limit: float) -> None:
    updates = [(update(n), float(w)) for n, w in rounds]
    middle = float(torch.tensor([norm(u) for u, _ in updates]).quantile(0.5))
    assert float(result(ClippedMean(limit), updates).norm()) <= limit * middle * 1.001 + 1e-6


def test_a_huge_update_is_named_and_moves_the_mean_no_further_than_the_limit() -> None:
    honest = [(update([1.0] * 6), 1.0)] * 3
    clipped = ClippedMean(2.0)
    found = result(clipped, [*honest, (update([1e9] * 6), 1.0)])
    assert clipped.shortened() == {"node-3": pytest.approx(1e9)}
    assert torch.allclose(found, torch.full((6,), (3 + 2) / 4))


@given(st.lists(NUMBERS, min_size=1, max_size=7))
def test_the_median_is_the_median_of_each_number(rounds: list[list[float]]) -> None:
    expected = torch.tensor(rounds, dtype=torch.float64).quantile(0.5, dim=0)
    found = result(Median(), [(update(numbers), 1.0) for numbers in rounds])
    assert torch.allclose(found.double(), expected, atol=1e-5)


@given(st.lists(NUMBERS, min_size=3, max_size=7), st.sampled_from([-1e30, 1e30]))
def test_fewer_than_half_cannot_move_the_median_beyond_the_others(honest: list[list[float]], evil: float) -> None:
    liars = [[evil] * 6] * ((len(honest) - 1) // 2)
    found = result(Median(), [(update(numbers), 1.0) for numbers in [*honest, *liars]])
    numbers = torch.tensor(honest)
    assert (found >= numbers.min(0).values - 1e-5).all() and (found <= numbers.max(0).values + 1e-5).all()
