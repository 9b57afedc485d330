"""Against scikit-learn and SciPy, with ties."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, average_precision_score, f1_score
from torch.nn.functional import one_hot

from fedkd_flwr.tasks.metrics import Decisions, average_precision, mean, rank_correlation

few = st.integers(-3, 3)


@given(st.integers(1, 20).flatmap(lambda n: st.tuples(arrays(np.float32, n, elements=few), arrays(bool, n))))
def test_average_precision(pair: tuple[NDArray[np.float32], NDArray[np.bool_]]) -> None:
    scores, positive = pair
    expected = average_precision_score(positive, scores) if positive.any() else 0.0
    assert average_precision(torch.from_numpy(scores), torch.from_numpy(positive)) == pytest.approx(expected)


@given(arrays(np.float64, st.tuples(st.just(2), st.integers(2, 20)), elements=few))
def test_rank_correlation(pair: NDArray[np.float64]) -> None:
    assume(all(len(set(values)) > 1 for values in pair))
    expected = spearmanr(*pair).statistic
    assert rank_correlation(*torch.from_numpy(pair)) == pytest.approx(expected, abs=1e-12)


@given(arrays(np.int64, st.tuples(st.just(2), st.integers(1, 20)), elements=st.integers(0, 3)), st.integers(1, 20))
def test_decisions_of_one_class_each(pair: NDArray[np.int64], size: int) -> None:
    decisions = Decisions(5)
    for decided, gold in zip(*(torch.from_numpy(labels).split(size) for labels in pair), strict=True):
        decisions.update(one_hot(decided, 5).bool(), one_hot(gold, 5).bool())
    decided, gold = pair
    assert decisions.recall == pytest.approx(accuracy_score(gold, decided))
    assert decisions.micro_f1 == pytest.approx(f1_score(gold, decided, average="micro"))
    assert decisions.macro_f1 == pytest.approx(f1_score(gold, decided, average="macro"))
    each = f1_score(gold, decided, labels=range(5), average=None, zero_division=0)
    assert decisions.f1.numpy() == pytest.approx(each)


def test_scores_of_nothing_are_zero() -> None:
    decisions = Decisions(2)
    decisions.update(torch.zeros(3, 2, dtype=torch.bool), torch.zeros(3, 2, dtype=torch.bool))
    assert (decisions.micro_f1, decisions.macro_f1, mean(torch.empty(0))) == (0, 0, 0)
