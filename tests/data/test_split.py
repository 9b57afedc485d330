from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedkd_flwr.data.split import held_out

labels = st.lists(st.integers(0, 4), min_size=2, max_size=200).map(np.array)
fractions = st.floats(0.001, 0.999)


@given(labels, fractions, st.integers(0, 2**32 - 1))
def test_train_and_test_are_disjoint_and_cover_everything(labels: np.ndarray, fraction: float, seed: int) -> None:
    train, test = held_out(labels, fraction, 0, np.random.default_rng(seed))
    assert sorted([*train, *test]) == list(range(len(labels)))
    assert len(train) > 0 < len(test)
    assert abs(len(test) - fraction * len(labels)) <= 1


@given(labels, fractions, st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_each_class_is_held_out_by_its_share(labels: np.ndarray, fraction: float, limit: int, seed: int) -> None:
    _, test = held_out(labels, fraction, limit, np.random.default_rng(seed))
    for label, total in Counter(labels).items():
        assert abs((labels[test] == label).sum() - total * len(test) / len(labels)) < 3


@given(labels, fractions, st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_the_limit_only_thins_out_the_test_rows(labels: np.ndarray, fraction: float, limit: int, seed: int) -> None:
    train, test = held_out(labels, fraction, 0, np.random.default_rng(seed))
    same, fewer = held_out(labels, fraction, limit, np.random.default_rng(seed))
    assert list(same) == list(train)
    assert set(fewer) <= set(test)
    assert len(fewer) == min(limit, len(test))


def test_every_row_is_equally_likely_to_be_tested_on() -> None:
    labels = np.array([0] * 7 + [1] * 2 + [2])
    drawn = Counter(
        row for seed in range(2000) for row in held_out(labels, 0.3, 2, np.random.default_rng(seed))[1].tolist()
    )
    assert max(abs(drawn[row] / 2000 - 0.2) for row in range(10)) < 0.04
