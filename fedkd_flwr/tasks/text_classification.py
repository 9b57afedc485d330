"""One label per text."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fedkd_flwr.tasks.single_label import SingleLabel
from fedkd_flwr.tasks.text import CHUNK, Rows, by_length, digest, padded

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


class TextClassification(SingleLabel):
    """Single-label classification: cross-entropy, KL divergence, accuracy and macro F1."""

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
        """SHA-256 of the tokenizer and of the maximal length."""
        return digest(self.processor, "text-classification", self._max_length)

    def encode(self, dataset: "Dataset") -> "pa.Table":
        """Tokenise the columns `text` (str) and `label` (int) of a data set.

        Returns:
            Columns `tokens` (int32 ids, unpadded) and `label` (int64).
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
        return pa.table({"tokens": pa.concat_arrays(tokens), "label": pa.array(dataset["label"][:], pa.int64())})

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
            int64 [batch]. Segment ids are left out: a single text has one segment, every model's default.
        """
        texts, labels = Rows.of(examples["tokens"]), examples["label"].chunk(0).to_numpy()
        for rows in by_length(texts, len(examples), batch_size, order):
            tokens = [texts[row] for row in rows]
            yield {
                "input_ids": padded(tokens, self.processor.pad_token_id),
                "attention_mask": padded([np.ones_like(text) for text in tokens], 0),
                "labels": torch.from_numpy(labels[rows]),
            }
