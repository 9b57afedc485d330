"""Which of the offered news a user clicks, by the titles of these and of the news that they clicked before."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor, nn

from fedkd_flwr.config.groups import ModelConfig
from fedkd_flwr.tasks.base import Readers
from fedkd_flwr.tasks.label_priors import Link
from fedkd_flwr.tasks.numerics import finite, full
from fedkd_flwr.tasks.text import Rows, digest, padded, tokenised, tokens_and_mask

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

NOT_CLICKED = 4
"""Drawn in training for each clicked news."""

PADDING = -1


class NewsRecommendation:
    """Impressions: cross-entropy and KL divergence of the softmax over the offered news, AUC, MRR and nDCG."""

    link: Link | None = None

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", labels: tuple[str, ...], max_length: int, max_history: int
    ) -> None:
        """A task.

        Args:
            tokenizer: has a padding token.
            labels: what 0 and 1 say of an offered news.
            max_length: tokens of a title, special ones included; the rest is cut.
            max_history: the latest so many clicked news make a user; at least 1.
        """
        self.processor = tokenizer
        self.teacher_processor = None
        self.labels = labels
        self._max_length = max_length
        self._max_history = max_history

    @classmethod
    def build(cls, readers: Readers, labels: tuple[str, ...], model: ModelConfig) -> Self:
        """See `Task.build`."""
        return cls(readers.student, labels, model.max_length, model.max_history)

    @cached_property
    def encoding(self) -> str:
        """SHA-256 of the tokenizer and of the maximal length."""
        return digest(self.processor, "news-recommendation", self._max_length)

    def encode(self, dataset: "Dataset") -> "pa.Table":
        """Tokenise the column `titles` of a data set as `fedkd_flwr.data.impressions.as_dataset` makes it.

        Returns:
            Columns `tokens` (a list of titles, int32 ids, unpadded: of the first row all titles, of the others none),
            `history` and `candidates` (int32 indices of titles), `clicked` (int8).
        """
        import pyarrow as pa

        table = dataset.with_format("arrow")[:].combine_chunks().replace_schema_metadata()
        (rows,) = table["titles"].chunks
        tokens = tokenised(rows.values.to_pylist(), self.processor, self._max_length).ids
        nested = pa.LargeListArray.from_arrays(rows.offsets.cast(pa.int64()), tokens)
        return pa.table({"tokens": nested, **{name: table[name] for name in ("history", "candidates", "clicked")}})

    def made_up(self) -> "pa.Table":
        """Two examples of nobody, as `encode` returns them."""
        import pyarrow as pa

        titles, whole = tokenised(["a", "b", "c d"], self.processor, self._max_length).ids, pa.int32()
        return pa.table(
            {
                "tokens": pa.LargeListArray.from_arrays(pa.array([0, 3, 3], pa.int64()), titles),
                "history": pa.array([[0], [0, 1]], pa.large_list(whole)),
                "candidates": pa.array([[1, 2], [2, 0]], pa.large_list(whole)),
                "clicked": pa.array([[0, 1], [1, 0]], pa.large_list(pa.int8())),
            }
        )

    def batches(
        self, examples: "pa.Table", batch_size: int, order: Sequence[int] | None = None
    ) -> Iterator[dict[str, Tensor]]:
        """Batches of impressions with the titles that they speak of, each once.

        Args:
            examples: what `encode` returned.
            batch_size: impressions of a batch; the last may hold fewer.
            order: impressions to train on, repeats allowed: of each, one of the clicked news and up to four of the
                others, drawn from a stream that the order alone decides on. None: all impressions, whole, to be scored.

        Yields:
            `input_ids` and `attention_mask` (1: token, 0: padding), int64 [titles, longest]; `history`, int64
            [batch, clicked], and `candidates`, int64 [batch, offered]: which titles, -1: padding; `labels`, int64
            [batch, offered], 1: clicked, 0: not, -1: padding.
        """
        import pyarrow as pa

        titles = Rows.of(pa.chunked_array([examples["tokens"].chunk(0).values]))
        history, candidates, clicked = (Rows.of(examples[name]) for name in ("history", "candidates", "clicked"))
        stream = None if order is None else np.random.default_rng(np.asarray(order, np.uint32))
        rows = range(len(examples)) if order is None else order
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            offers = [
                np.arange(candidates.length(row)) if stream is None else _drawn(clicked[row], stream) for row in batch
            ]
            offered = padded([candidates[row][offer] for row, offer in zip(batch, offers, strict=True)], PADDING)
            read = padded([history[row][-self._max_history :] for row in batch], PADDING)
            used = torch.cat([read, offered], 1)
            distinct = torch.unique(used[used != PADDING])
            places = torch.searchsorted(distinct, used).where(used != PADDING, PADDING)
            yield tokens_and_mask([titles[title] for title in distinct.tolist()], self.processor) | {
                "history": places[:, : read.shape[1]],
                "candidates": places[:, read.shape[1] :],
                "labels": padded([clicked[row][offer] for row, offer in zip(batch, offers, strict=True)], PADDING),
            }

    def task_loss(self, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """Cross-entropy of the softmax over the offered news, the clicked ones of an impression in equal parts, mean.

        Args:
            logits: [batch, offered].
            labels: int64 [batch, offered], 1: clicked, 0: not, -1: padding; one of a row is 1.
            weights: do not matter, there are no classes.

        Returns:
            A scalar of at least float32.
        """
        return _cross_entropy(logits, labels).mean()

    def divergence(self, target_logits: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """KL(softmax(target) || softmax(logits)) over the offered news at temperature 1, mean over the batch.

        Args:
            target_logits: [batch, offered]; a gradient flows into them unless they are detached.
            logits: [batch, offered].
            labels: -1 where nothing is offered.

        Returns:
            A scalar of at least float32.
        """
        target, output = (_log_softmax(x, labels) for x in (target_logits, logits))
        return nn.functional.kl_div(output, target, log_target=True, reduction="batchmean")

    def scores(self) -> "RankingScores":
        """Fresh scores."""
        return RankingScores()


class RankingScores:
    """AUC, MRR, nDCG@5 and nDCG@10 of MIND, and the cross-entropy: means over impressions.

    As in MIND's evaluation: MRR is the mean of 1 / rank over all clicked news, and of news with equal scores the later
    one comes first (in AUC they count half). An impression without clicks counts in none of these, one of which all
    news were clicked not in AUC.
    """

    def __init__(self) -> None:
        self._found: defaultdict[str, list[Tensor]] = defaultdict(list)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Take in a batch: logits [batch, offered], labels int64 [batch, offered] as in `task_loss`, on any device."""
        logits, labels = full(logits.detach()).cpu(), labels.cpu()
        losses = _cross_entropy(logits, labels).double()
        logits = logits.masked_fill(labels == PADDING, -torch.inf)
        positive, negative = (labels == 1).double(), (labels == 0).double()
        won = torch.sign(logits.unsqueeze(2) - logits.unsqueeze(1)).nan_to_num() / 2 + 0.5
        pairs = positive.unsqueeze(2) * negative.unsqueeze(1)
        clicks = positive.sum(1)
        ranked = positive.flip(1).gather(1, logits.flip(1).argsort(stable=True, dim=1, descending=True))
        ranks = torch.arange(1, logits.shape[1] + 1, dtype=torch.float64)
        gains = 1 / torch.log2(ranks + 1)
        best = (ranks <= clicks.unsqueeze(1)).double()
        clicked, both = clicks > 0, pairs.sum((1, 2)) > 0
        found = {
            "auc": (won * pairs).sum((1, 2)) / pairs.sum((1, 2)),
            "mrr": (ranked / ranks).sum(1) / clicks,
            **{f"ndcg@{k}": (ranked * gains)[:, :k].sum(1) / (best * gains)[:, :k].sum(1) for k in (5, 10)},
            "loss": losses,
        }
        for name, values in found.items():
            self._found[name].append(values[both if name == "auc" else clicked])

    def compute(self) -> dict[str, float]:
        """Scores of all impressions so far.

        Returns:
            Means over the impressions that have each score, without the scores that none has.

        Raises:
            RunError: the loss is not finite.
        """
        columns = {name: torch.cat(parts) for name, parts in self._found.items()}
        scores = {name: float(column.mean()) for name, column in columns.items() if len(column)}
        if "loss" in scores:
            finite(scores["loss"])
        return scores


def _drawn(clicked: "NDArray[np.int8]", stream: np.random.Generator) -> "NDArray[np.int64]":
    """Places of one clicked news and of up to `NOT_CLICKED` others."""
    yes, no = np.flatnonzero(clicked == 1), np.flatnonzero(clicked == 0)
    return np.concatenate([stream.choice(yes, 1), stream.choice(no, min(NOT_CLICKED, len(no)), replace=False)])


def _log_softmax(logits: Tensor, labels: Tensor) -> Tensor:
    """Over what is offered; 0 elsewhere."""
    nowhere = labels == PADDING
    return full(logits).masked_fill(nowhere, -torch.inf).log_softmax(-1).masked_fill(nowhere, 0.0)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """[batch]."""
    clicked = labels == 1
    return -(_log_softmax(logits, labels) * clicked).sum(-1) / clicked.sum(-1)
