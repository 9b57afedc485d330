import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.mind import write_mind
from torch import Tensor

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.data.impressions import LABELS, as_dataset
from fedkd_flwr.data.mind import find, read
from fedkd_flwr.errors import RunError
from fedkd_flwr.models.readers import build_task
from fedkd_flwr.tasks.base import Task
from fedkd_flwr.tasks.news_recommendation import PADDING, NewsRecommendation, RankingScores

WORDS = "abcdefghi"


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> NewsRecommendation:
    from transformers import BertTokenizer

    vocabulary = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    tokenizer = BertTokenizer.from_pretrained(vocabulary.parent)
    return NewsRecommendation(tokenizer, LABELS, max_length=5, max_history=6)


@pytest.fixture(scope="module")
def impressions(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Those of a folder; history and candidates as titles, all different."""
    folder = tmp_path_factory.mktemp("mind")
    write_mind(folder, [f"{a} {b} {a} {a}"[: 2 * (1 + i % 4)] + b for i, a in enumerate(WORDS) for b in WORDS], 6, 4, 1)
    mind = read(find(str(folder)))
    return [
        row | {part: [mind.titles[news].as_py() for news in row[part]] for part in ("history", "candidates")}
        for row in mind.train.to_pylist()
    ]


@pytest.fixture(scope="module")
def examples(
    task: NewsRecommendation, impressions: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> pa.Table:
    titles = sorted({title for row in impressions for part in ("history", "candidates") for title in row[part]})
    index = {title: number for number, title in enumerate(titles)}
    rows = [{p: [index[t] for t in row[p]] for p in ("history", "candidates")} for row in impressions]
    table = pa.table(
        {
            "history": pa.array([row["history"] for row in rows], pa.large_list(pa.int32())),
            "candidates": pa.array([row["candidates"] for row in rows], pa.large_list(pa.int32())),
            "clicked": pa.array([row["clicked"] for row in impressions], pa.large_list(pa.int8())),
        }
    )
    return task.encode(as_dataset(table, pa.array(titles)))


def shown(task: NewsRecommendation, batch: dict[str, Tensor]) -> list[tuple[list[str], list[tuple[str, int]]]]:
    """The history and the labelled candidates of each impression of a batch, as titles."""
    titles = task.processor.batch_decode(batch["input_ids"], skip_special_tokens=True)
    return [
        (
            [titles[news] for news in history if news != PADDING],
            [(titles[news], int(label)) for news, label in zip(offered, labels, strict=True) if news != PADDING],
        )
        for history, offered, labels in zip(batch["history"], batch["candidates"], batch["labels"], strict=True)
    ]


def test_it_is_a_task(task: NewsRecommendation, defaults: dict[str, Any], tiny_bert: Path) -> None:
    checked: Task = task
    assert checked.labels == LABELS
    raw = defaults | {"task": "news-recommendation", "model.teacher": str(tiny_bert), "data.dataset": "mind:a"}
    built = build_task(RunConfig.parse(raw), LABELS)
    assert isinstance(built, NewsRecommendation)
    assert built.encoding == build_task(RunConfig.parse(raw | {"model.max-history": 9}), LABELS).encoding
    assert built.encoding != build_task(RunConfig.parse(raw | {"model.max-length": 9}), LABELS).encoding


@given(batch_size=st.integers(1, 30))
def test_to_be_scored_all_impressions_come_whole(
    task: NewsRecommendation, impressions: list[dict[str, Any]], examples: pa.Table, batch_size: int
) -> None:
    found = []
    for batch in task.batches(examples, batch_size):
        assert {tensor.dtype for tensor in batch.values()} == {torch.int64}
        assert len(batch["input_ids"].unique(dim=0)) == len(batch["input_ids"]), "each title once"
        assert batch["attention_mask"].sum(1).max() == batch["input_ids"].shape[1] <= 5
        assert torch.equal(batch["candidates"] == PADDING, batch["labels"] == PADDING)
        found += shown(task, batch)
    assert found == [
        (
            [" ".join(title.split()[:3]) for title in row["history"][-6:]],
            [(" ".join(t.split()[:3]), c) for t, c in zip(row["candidates"], row["clicked"], strict=True)],
        )
        for row in impressions
    ]


@given(order=st.lists(st.integers(0, 23), min_size=1, max_size=60), batch_size=st.integers(1, 9))
def test_to_be_trained_on_each_has_one_clicked_news_and_up_to_four_others(
    task: NewsRecommendation,
    impressions: list[dict[str, Any]],
    examples: pa.Table,
    order: list[int],
    batch_size: int,
) -> None:
    batches = list(task.batches(examples, batch_size, order))
    assert all(len(batch["labels"]) == batch_size for batch in batches[:-1])
    found = [impression for batch in batches for impression in shown(task, batch)]
    for row, (history, offered) in zip(order, found, strict=True):
        whole = impressions[row]
        every = [(" ".join(t.split()[:3]), c) for t, c in zip(whole["candidates"], whole["clicked"], strict=True)]
        assert len(history) == min(6, len(whole["history"]))
        assert sum(click for _, click in offered) == 1 and offered[0][1] == 1
        assert len(offered) - 1 == min(4, whole["clicked"].count(0))
        assert all(every.count(news) >= offered.count(news) for news in offered)
    again = [impression for batch in task.batches(examples, 24, order) for impression in shown(task, batch)]
    assert again == found, "the order alone decides, not how it is cut"


def test_another_order_draws_others(task: NewsRecommendation, examples: pa.Table) -> None:
    one, other = ([shown(task, b) for b in task.batches(examples, 24, [*range(24), i])] for i in (0, 1))
    assert one[0] != other[0]


def drawn(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Float64 logits of two models and labels, with padding, of five impressions."""
    generator = torch.Generator().manual_seed(seed)
    target, output = torch.randn(2, 5, 6, generator=generator, dtype=torch.float64)
    labels = torch.tensor(
        [[1, 0, 0, 0, 0, 0], [0, 1, -1, -1, -1, -1], [1, 1, 0, 0, -1, -1], [0, 0, 1, 0, 0, -1], [0, 0, 0, 0, 1, 1]]
    )
    return target, output, labels


def test_losses_are_those_of_a_softmax_over_what_is_offered(task: NewsRecommendation) -> None:
    target, output, labels = drawn(0)
    losses, divergences = [], []
    for t, o, row in zip(target, output, labels, strict=True):
        p, q = torch.softmax(t[row >= 0], -1), torch.softmax(o[row >= 0], -1)
        losses.append(np.mean([-math.log(q[i]) for i in range(len(q)) if row[i] == 1]))
        divergences.append(sum(float(a * (a / b).log()) for a, b in zip(p, q, strict=True)))
    assert float(task.task_loss(output, labels)) == pytest.approx(np.mean(losses))
    assert float(task.divergence(target, output, labels)) == pytest.approx(np.mean(divergences))
    target.requires_grad_()
    output.requires_grad_()
    assert torch.autograd.gradcheck(lambda t, x: task.divergence(t, x, labels), (target, output))
    assert torch.autograd.gradcheck(lambda x: task.task_loss(x, labels), output)


@pytest.mark.parametrize("filler", [-math.inf, 0.0, 1e4])
def test_what_is_not_offered_does_not_matter(task: NewsRecommendation, filler: float) -> None:
    target, output, labels = drawn(1)
    other = output.masked_fill(labels == PADDING, filler).requires_grad_()
    assert torch.equal(task.task_loss(other, labels), task.task_loss(output, labels))
    assert torch.equal(task.divergence(target, other, labels), task.divergence(target, output, labels))
    (task.task_loss(other, labels) + task.divergence(target, other, labels)).backward()  # type: ignore[no-untyped-call]
    assert other.grad is not None and other.grad.isfinite().all()
    assert not other.grad[labels == PADDING].any()


def by_hand(scores: NDArray[np.float64], clicked: NDArray[np.int64]) -> dict[str, float]:
    """The measures of MIND's evaluation of one impression, as its documentation defines them."""
    yes, no = scores[clicked == 1], scores[clicked == 0]
    wins = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in yes for b in no)
    ranking = np.argsort(scores, kind="stable")[::-1]

    def dcg(order: NDArray[np.int64], k: int) -> float:
        return sum((2 ** int(clicked[news]) - 1) / math.log2(place + 2) for place, news in enumerate(order[:k]))

    if not len(yes):
        return {}
    best = np.argsort(clicked, kind="stable")[::-1]
    reciprocal = sum(1 / (place + 1) for place, news in enumerate(ranking) if clicked[news] == 1)
    return {
        **({"auc": wins / (len(yes) * len(no))} if len(no) else {}),
        "mrr": reciprocal / len(yes),
        "ndcg@5": dcg(ranking, 5) / dcg(best, 5),
        "ndcg@10": dcg(ranking, 10) / dcg(best, 10),
    }


@given(st.data())
def test_scores_are_those_of_mind_however_batched(data: st.DataObject) -> None:
    """A few values for the scores: ties are frequent. Means over the impressions that have the score, not over news."""
    rows = data.draw(
        st.lists(
            st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 1)), min_size=2, max_size=14),
            min_size=1,
            max_size=6,
        )
    )
    cut, scores = data.draw(st.integers(0, len(rows))), RankingScores()
    for part in (rows[:cut], rows[cut:]):
        if part:
            labels = torch.full((len(part), 16), PADDING)
            logits = torch.full((len(part), 16), 9.0)
            for i, row in enumerate(part):
                for j, (score, click) in enumerate(row):
                    logits[i, j], labels[i, j] = score, click
            scores.update(logits, labels)
    each = [by_hand(*(np.array(column) for column in zip(*row, strict=True))) for row in rows]
    computed, names = scores.compute(), {name for one in each for name in one}
    assert computed.pop("loss", 0.0) > 0 or "mrr" not in names
    assert computed == pytest.approx({n: np.mean([one[n] for one in each if n in one]) for n in names})
    assert all(type(value) is float for value in computed.values())


def test_a_diverged_model_is_an_error_not_a_number() -> None:
    scores = RankingScores()
    scores.update(torch.tensor([[math.nan, 0.0]]), torch.tensor([[0, 1]]))
    with pytest.raises(RunError, match="the loss on the held-out examples is nan"):
        scores.compute()
