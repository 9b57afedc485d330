from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score, f1_score
from torch import Tensor

from fedkd_flwr.errors import RunError
from fedkd_flwr.tasks.multi_label import MultiLabel, MultiLabelScores

LABELS = ("late", "rude", "lost")
finite = st.floats(-30, 30, width=32)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> MultiLabel:
    from transformers import BertTokenizer

    vocabulary = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghi"]))
    return MultiLabel(BertTokenizer.from_pretrained(Path(vocabulary).parent), LABELS, max_length=6)


def test_labels_of_a_batch_say_which_classes_a_text_has(task: MultiLabel) -> None:
    lists = [[0, 2], [], [1], [2, 1, 0], [2]]
    dataset = Dataset(
        pa.table({"text": ["a b", "c", "d e f g h i", "a", "i h"], "label": pa.array(lists, pa.list_(pa.int64()))})
    )
    for chosen in (dataset, dataset.select([3, 1, 4])):
        examples = task.encode(chosen)
        for batch in task.batches(examples, 2, order=[2, 0, 1]):
            assert batch["labels"].dtype == torch.float32
        (whole,) = task.batches(examples, 9)
        found = [row.nonzero().flatten().tolist() for row in whole["labels"]]
        assert found == [sorted(row) for row in chosen["label"]]


@given(arrays(np.float32, (4, 3), elements=finite), arrays(np.float32, (4, 3), elements=finite))
def test_divergence_is_that_of_independent_decisions(task: MultiLabel, target: object, output: object) -> None:
    one, other = torch.tensor(target, dtype=torch.float64), torch.tensor(output, dtype=torch.float64)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Bernoulli(logits=one), torch.distributions.Bernoulli(logits=other)
    ).mean()
    found = task.divergence(one, other, torch.zeros(4, 3))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    assert found >= -1e-12 and abs(float(task.divergence(one, one, torch.zeros(4, 3)))) < 1e-12


def test_the_task_loss_grows_with_each_wrong_decision(task: MultiLabel) -> None:
    labels = torch.tensor([[1.0, 0.0, 1.0]])
    right = 4 * (2 * labels - 1)
    assert task.task_loss(right, labels) == pytest.approx(np.log1p(np.exp(-4)), rel=1e-4)
    for place in range(3):
        wrong = right.clone()
        wrong[0, place] *= -1
        assert task.task_loss(wrong, labels) > task.task_loss(right, labels) + 1
    half = task.task_loss(right.bfloat16(), labels)
    assert half.dtype == torch.float32


@st.composite
def outputs(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Logits and labels of some texts, a quarter of a point apart at least."""
    rows = draw(st.integers(1, 12))
    logits = draw(arrays(np.int64, (rows, 3), elements=st.integers(-9, 9)))
    labels = draw(arrays(np.int64, (rows, 3), elements=st.integers(0, 1)))
    return torch.tensor(logits / 4 + 0.1, dtype=torch.float32), torch.tensor(labels, dtype=torch.float32)


@given(outputs(), st.integers(1, 5))
def test_scores_are_scikit_learns_and_do_not_depend_on_batches(pair: tuple[Tensor, Tensor], size: int) -> None:
    logits, labels = pair
    scores = MultiLabelScores(3)
    for start in range(0, len(logits), size):
        scores.update(logits[start : start + size], labels[start : start + size])
    found, gold, decided = scores.compute(), labels.numpy(), (logits > 0).numpy()
    occurs = gold.any(axis=0)
    if not occurs.any():
        assert found.keys() == {"loss"}
        return
    assert found["micro-f1"] == pytest.approx(f1_score(gold, decided, average="micro", zero_division=0), abs=1e-5)
    matters = occurs | decided.any(axis=0)
    each = f1_score(gold, decided, average=None, zero_division=0)
    assert found["macro-f1"] == pytest.approx(each[matters].mean(), abs=1e-5)
    ranking = [average_precision_score(gold[:, c], logits[:, c].sigmoid().numpy()) for c in range(3) if occurs[c]]
    assert found["mean-average-precision"] == pytest.approx(np.mean(ranking), abs=1e-5)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    assert found["loss"] == pytest.approx(float(loss), abs=1e-5)


def test_a_model_that_diverged_is_an_error() -> None:
    scores = MultiLabelScores(3)
    scores.update(torch.full((1, 3), torch.nan), torch.zeros(1, 3))
    with pytest.raises(RunError, match=r"the model has diverged, lower train.learning-rate"):
        scores.compute()
