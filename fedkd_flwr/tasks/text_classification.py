"""One label per text."""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from fedkd_flwr.distillation import TEACHER
from fedkd_flwr.errors import RunError
from fedkd_flwr.tasks.text import CHUNK, Rows, by_length, digest, full, padded

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


class TextClassification:
    """Single-label classification: cross-entropy, KL divergence, accuracy and macro F1."""

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        labels: tuple[str, ...],
        max_length: int,
        teacher_tokenizer: "PreTrainedTokenizerBase | None" = None,
    ) -> None:
        """A task.

        Args:
            tokenizer: has a padding token.
            labels: the names of the classes.
            max_length: tokens of a text, special ones included; the rest is cut.
            teacher_tokenizer: another one, where the teacher reads other tokens than the student.
        """
        self.tokenizer = tokenizer
        self.teacher_tokenizer = teacher_tokenizer
        self.labels = labels
        self._max_length = max_length

    @cached_property
    def encoding(self) -> str:
        """SHA-256 of the tokenizers and of the maximal length."""
        tokenizers = self._tokenizers.values()
        return "+".join(digest(tokenizer, "text-classification", self._max_length) for tokenizer in tokenizers)

    def encode(self, dataset: "Dataset") -> "pa.Table":
        """Tokenise the columns `text` (str) and `label` (int) of a data set.

        Returns:
            Columns `tokens` (int32 ids, unpadded) and `label` (int64), and by a tokenizer of the teacher's own
            `teacher-tokens`.
        """
        import pyarrow as pa

        columns = {column: self._tokens(tokenizer, dataset["text"]) for column, tokenizer in self._tokenizers.items()}
        return pa.table(columns | {"label": pa.array(dataset["label"][:], pa.int64())})

    def batches(
        self, examples: "pa.Table", batch_size: int, order: Sequence[int] | None = None
    ) -> Iterator[dict[str, Tensor]]:
        """Batches of texts of similar length, padded to their own longest.

        Args:
            examples: what `encode` returned.
            batch_size: texts of a batch; one batch of a window may hold fewer.
            order: indices to go through, repeats allowed; None: each example once.

        Yields:
            `input_ids` and `attention_mask` (1: token, 0: padding), int64 [batch, longest]; `labels`,
            int64 [batch]. Segment ids are left out: a single text has one segment, every model's default. For a
            tokenizer of the teacher's own also `teacher.input_ids` and `teacher.attention_mask`, [batch, its longest].
        """
        texts, labels = Rows.of(examples["tokens"]), examples["label"].chunk(0).to_numpy()
        for rows in by_length(texts, len(examples), batch_size, order):
            batch = {"labels": torch.from_numpy(labels[rows])}
            for (column, tokenizer), prefix in zip(self._tokenizers.items(), ("", TEACHER), strict=False):
                read = texts if column == "tokens" else Rows.of(examples[column])
                tokens = [read[row] for row in rows]
                batch[f"{prefix}input_ids"] = padded(tokens, tokenizer.pad_token_id)
                batch[f"{prefix}attention_mask"] = padded([np.ones_like(text) for text in tokens], 0)
            yield batch

    def task_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy, mean over the batch.

        Args:
            logits: [batch, classes].
            labels: int64 [batch].

        Returns:
            A scalar of at least float32.
        """
        return nn.functional.cross_entropy(full(logits), labels)

    def divergence(self, target_logits: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """KL(softmax(target) || softmax(logits)) at temperature 1, mean over the batch.

        Args:
            target_logits: [batch, classes]; a gradient flows into them unless they are detached.
            logits: [batch, classes].
            labels: do not matter.

        Returns:
            A scalar of at least float32.
        """
        target, output = (nn.functional.log_softmax(full(x), dim=-1) for x in (target_logits, logits))
        return nn.functional.kl_div(output, target, log_target=True, reduction="batchmean")

    def scores(self) -> "ClassificationScores":
        """Fresh scores."""
        return ClassificationScores(len(self.labels))

    @property
    def _tokenizers(self) -> "dict[str, PreTrainedTokenizerBase]":
        """By the column of their tokens: the student's, then the teacher's where it is another."""
        found = {"tokens": self.tokenizer, "teacher-tokens": self.teacher_tokenizer}
        return {column: tokenizer for column, tokenizer in found.items() if tokenizer is not None}

    def _tokens(self, tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> "pa.Array":
        import pyarrow as pa

        tokens = []
        for start in range(0, len(texts), CHUNK):
            chunk = tokenizer(
                texts[start : start + CHUNK],
                truncation=True,
                max_length=self._max_length,
                return_attention_mask=False,
                return_token_type_ids=False,
            )
            tokens.append(pa.array(chunk["input_ids"], pa.large_list(pa.int32())))
        return pa.concat_arrays(tokens)


class ClassificationScores:
    """Accuracy, macro F1 and mean cross-entropy; of two classes also F1 and average precision of the second.

    Macro F1 is the mean F1 of the classes that are among the gold labels or the predictions: a class that is in
    neither does not count, one that is only predicted counts 0.
    """

    def __init__(self, classes: int) -> None:
        from torchmetrics import MeanMetric, MetricCollection
        from torchmetrics.classification import (
            BinaryAveragePrecision,
            BinaryF1Score,
            MulticlassAccuracy,
            MulticlassF1Score,
        )

        self._decisions = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(classes, average="micro", validate_args=False),
                "macro-f1": MulticlassF1Score(classes, average="macro", validate_args=False),
            }
        )
        self._positive = BinaryF1Score(validate_args=False) if classes == 2 else None
        self._ranking = BinaryAveragePrecision(validate_args=False) if classes == 2 else None
        self._loss = MeanMetric(nan_strategy="disable")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Take in a batch: logits [batch, classes], labels int64 [batch], on any device."""
        logits, labels = full(logits.detach()).cpu(), labels.cpu()
        self._decisions.update(logits.argmax(dim=-1), labels)
        if self._positive is not None and self._ranking is not None:
            self._positive.update(logits.argmax(dim=-1), labels)
            self._ranking.update(logits.softmax(dim=-1)[:, 1], labels)
        self._loss.update(nn.functional.cross_entropy(logits, labels, reduction="none"))

    def compute(self) -> dict[str, float]:
        """Scores of all examples so far, of which there is at least one.

        Returns:
            `accuracy`, `macro-f1` and `loss`; of two classes also `f1` and `average-precision`, 0 where no
            example is of the second.

        Raises:
            RunError: the loss is not finite.
        """
        loss = float(self._loss.compute())
        if not math.isfinite(loss):
            raise RunError(f"the loss on the held-out examples is {loss}: the model has diverged, lower learning-rate")
        scores = {name: float(value) for name, value in self._decisions.compute().items()}
        if self._positive is not None and self._ranking is not None:
            ranking = float(self._ranking.compute())
            scores |= {
                "f1": float(self._positive.compute()),
                "average-precision": ranking if math.isfinite(ranking) else 0.0,
            }
        return scores | {"loss": loss}
