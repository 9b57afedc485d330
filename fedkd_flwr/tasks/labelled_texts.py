"""Texts with a label of any kind each: tokenised once, batched by length."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from fedkd_flwr.tasks.text import CHUNK, Rows, by_length, digest, padded

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


class LabelledTexts:
    """Tokenised texts; a task adds losses and scores."""

    kind: ClassVar[str]

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", labels: tuple[str, ...], max_length: int) -> None:
        """A task.

        Args:
            tokenizer: has a padding token.
            labels: the names of the classes.
            max_length: tokens of a text, special ones included; the rest is cut.
        """
        self.processor = tokenizer
        self.labels = labels
        self._max_length = max_length

    @cached_property
    def encoding(self) -> str:
        """SHA-256 of the tokenizer, the task and the maximal length."""
        return digest(self.processor, self.kind, self._max_length)

    def encode(self, dataset: "Dataset") -> "pa.Table":
        """Tokenise the columns `text` (str) and `label` of a data set.

        Returns:
            Columns `tokens` (int32 ids, unpadded) and `label`, as it was.
        """
        import pyarrow as pa

        texts, tokens = dataset["text"], []
        for start in range(0, len(texts), CHUNK):
            chunk = self.processor(
                texts[start : start + CHUNK],
                truncation=True,
                max_length=self._max_length,
                return_attention_mask=False,
                return_token_type_ids=False,
            )
            tokens.append(pa.array(chunk["input_ids"], pa.large_list(pa.int32())))
        label = dataset.with_format("arrow")["label"][:].combine_chunks()
        return pa.table({"tokens": pa.concat_arrays(tokens), "label": label})

    def batches(
        self, examples: "pa.Table", batch_size: int, order: Sequence[int] | None = None
    ) -> Iterator[dict[str, Tensor]]:
        """Batches of texts of similar length, padded to their own longest.

        Args:
            examples: what `encode` returned.
            batch_size: texts of a batch; one batch of a window may hold fewer.
            order: indices to go through, repeats allowed; None: each example once.

        Yields:
            `input_ids` and `attention_mask` (1: token, 0: padding), int64 [batch, longest]; `labels`
            [batch, ...]. Segment ids are left out: a single text has one segment, every model's default.
        """
        texts, labels = Rows.of(examples["tokens"]), self.targets(examples["label"].chunk(0))
        for rows in by_length(texts, len(examples), batch_size, order):
            tokens = [texts[row] for row in rows]
            yield {
                "input_ids": padded(tokens, self.processor.pad_token_id),
                "attention_mask": padded([np.ones_like(text) for text in tokens], 0),
                "labels": labels[rows],
            }

    def targets(self, label: "pa.Array") -> Tensor:
        """The labels of all examples as losses and scores take them, [examples, ...]."""
        return torch.tensor(label.to_numpy())
