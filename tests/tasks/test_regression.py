import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pyarrow import array
from scipy.stats import spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from fedkd_flwr.errors import RunError
from fedkd_flwr.models.hub import load_tokenizer
from fedkd_flwr.tasks.numerics import scale
from fedkd_flwr.tasks.regression import Regression, RegressionScores


@pytest.fixture(scope="module")
def task() -> Regression:
    return Regression(load_tokenizer("minilm-l6"), ("1", "5"), max_length=8)


def test_the_lowest_is_minus_one_and_the_highest_one(task: Regression) -> None:
    assert task.targets(array([1.0, 3.0, 5.0, 6.0])).tolist() == [-1.0, 0.0, 1.0, 1.5]
    middle, half = scale(("-40", "1000000"))
    assert (middle - half, middle + half) == (-40, 1_000_000)


@given(arrays(np.float32, (5, 1), elements=st.floats(-4, 4, width=32)), st.floats(0.1, 3))
def test_losses_are_squared_distances(task: Regression, logits: object, far: float) -> None:
    outputs = torch.tensor(logits)
    assert float(task.task_loss(outputs, outputs[:, 0])) == 0 == float(task.divergence(outputs, outputs, outputs))
    assert float(task.task_loss(outputs + far, outputs[:, 0])) == pytest.approx(far**2, rel=1e-4)
    assert float(task.divergence(outputs, outputs - far, outputs)) == pytest.approx(far**2, rel=1e-4)
    assert task.task_loss(outputs.half(), outputs[:, 0]).dtype == torch.float32


@given(
    st.lists(st.tuples(st.integers(-60, 60), st.integers(10, 50)), min_size=1, max_size=20),
    st.sampled_from([("1", "5"), ("100", "900000")]),
    st.integers(1, 6),
)
def test_scores_are_those_of_the_numbers_themselves(
    pairs: list[tuple[int, int]], labels: tuple[str, str], size: int
) -> None:
    middle, half = scale(labels)
    outputs, gold = (torch.tensor(column, dtype=torch.float32) / 20 - 1 for column in zip(*pairs, strict=True))
    scores = RegressionScores(labels)
    for start in range(0, len(pairs), size):
        scores.update(outputs[start : start + size, None], gold[start : start + size])
    found = scores.compute()
    said, true = (middle + half * column.double().numpy() for column in (outputs, gold))
    assert found["mae"] == pytest.approx(mean_absolute_error(true, said), rel=1e-4, abs=1e-4 * half)
    assert found["rmse"] == pytest.approx(root_mean_squared_error(true, said), rel=1e-4, abs=1e-4 * half)
    if len(set(true)) > 1:
        assert found["r2"] == pytest.approx(r2_score(true, said), rel=1e-3, abs=1e-4)
        ranks = spearmanr(true, said).statistic if len(set(said)) > 1 else 0.0
        assert found["spearman"] == pytest.approx(ranks, abs=1e-4)
    else:
        assert found.keys() == {"mae", "rmse", "loss"}


def test_a_model_that_diverged_is_an_error() -> None:
    scores = RegressionScores(("0", "1"))
    scores.update(torch.tensor([[torch.inf]]), torch.zeros(1))
    with pytest.raises(RunError, match=r"the model has diverged, lower train.learning-rate"):
        scores.compute()
