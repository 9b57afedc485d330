"""Texts with a label of any kind each: tokenised once, batched by length."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from fedkd_flwr.config.groups import ModelConfig
from fedkd_flwr.distillation import SEGMENTS, TEACHER
from fedkd_flwr.tasks.base import Readers
from fedkd_flwr.tasks.text import Rows, by_length, digest, padded, tokenised, tokens_and_mask

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_PER_TOKEN = ("tokens", "segments")
"""How columns with a number for each token are called, after what says whose they are."""


class LabelledTexts:
    """Tokenised texts; a task adds losses and scores."""

    kind: ClassVar[str]
    two_labels: ClassVar[Sequence[Any]] = (0, 1)
    """As `encode` returns them."""

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
        self.processor = tokenizer
        self.teacher_processor = teacher_tokenizer
        self.labels = labels
        self._max_length = max_length

    @classmethod
    def build(cls, readers: Readers, labels: tuple[str, ...], model: ModelConfig) -> Self:
        """See `Task.build`."""
        return cls(readers.student, labels, model.max_length, readers.teacher)

    @cached_property
    def encoding(self) -> str:
        """SHA-256 of the tokenizers, the task and the maximal length."""
        tokenizers = self._tokenizers.values()
        return "+".join(digest(tokenizer, self.kind, self._max_length) for tokenizer in tokenizers)

    def encode(self, dataset: "Dataset") -> "pa.Table":
        """Tokenise the columns `text` (str), `pair` (str, where texts come in pairs) and `label` of a data set.

        Returns:
            Columns `tokens` (int32 ids, unpadded), `length` (int32: how many they were before they were cut) and
            `label`, as it was, and by a tokenizer of the teacher's own `teacher-tokens`. Of pairs also `segments` and
            `teacher-segments` (int8), by tokenizers that know them.

        Raises:
            ConfigError: the maximal length is too small for pairs.
        """
        pairs = dataset["pair"][:] if "pair" in dataset.column_names else None
        return self._encoded(dataset["text"][:], pairs, dataset.with_format("arrow")["label"][:].combine_chunks())

    def made_up(self) -> "pa.Table":
        """Two examples of nobody, as `encode` returns them."""
        import pyarrow as pa

        return self._encoded(["a", "b c d"], None, pa.array(self.two_labels))

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
            [batch, ...]. Of pairs also `token_type_ids`, int64 [batch, longest], where the tokenizer gives them: a
            single text has one segment, every model's default. For a tokenizer of the teacher's own the same,
            `teacher.input_ids` and so on, [batch, its longest].
        """
        labels = self.targets(examples["label"].chunk(0))
        columns = {name: Rows.of(examples[name]) for name in examples.column_names if name.endswith(_PER_TOKEN)}
        for rows in by_length(columns["tokens"], len(examples), batch_size, order):
            batch = {"labels": labels[rows]}
            for model, (prefix, tokenizer) in zip(("", TEACHER), self._tokenizers.items(), strict=False):
                inputs = tokens_and_mask([columns[f"{prefix}tokens"][row] for row in rows], tokenizer)
                if (segments := columns.get(f"{prefix}segments")) is not None:
                    inputs[SEGMENTS] = padded([segments[row] for row in rows], tokenizer.pad_token_type_id)
                batch |= {f"{model}{name}": tensor for name, tensor in inputs.items()}
            yield batch

    def targets(self, label: "pa.Array") -> Tensor:
        """The labels of all examples as losses and scores take them, [examples, ...]."""
        return torch.tensor(np.from_dlpack(label))

    def _encoded(self, texts: Sequence[str], pairs: Sequence[str] | None, label: "pa.Array") -> "pa.Table":
        import pyarrow as pa

        columns: dict[str, pa.Array] = {}
        for prefix, tokenizer in self._tokenizers.items():
            found = tokenised(texts, tokenizer, self._max_length, pairs)
            columns[f"{prefix}tokens"] = found.ids
            columns.setdefault("length", found.lengths)
            if found.segments is not None:
                columns[f"{prefix}segments"] = found.segments
        return pa.table(columns | {"label": label})

    @property
    def _tokenizers(self) -> dict[str, "PreTrainedTokenizerBase"]:
        """By what begins the names of their columns: the student's, then the teacher's where it is another."""
        found = {"": self.processor, "teacher-": self.teacher_processor}
        return {prefix: tokenizer for prefix, tokenizer in found.items() if tokenizer is not None}
