"""A tag per word (IOB2): the first piece of a word carries its tag, the others none."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from fedkd_flwr.config.groups import ModelConfig
from fedkd_flwr.distillation import PLACES, TEACHER
from fedkd_flwr.tasks.base import Readers
from fedkd_flwr.tasks.label_priors import Link
from fedkd_flwr.tasks.numerics import finite, full, softmax_divergence, weighted_cross_entropy
from fedkd_flwr.tasks.text import CHUNK, Rows, by_length, digest, padded, tokens_and_mask
from fedkd_flwr.tasks.words import UNLABELLED, WordReader, common_parts

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase


class TokenClassification:
    """Tags of words: cross-entropy and KL divergence over first pieces, F1 of spans.

    A sentence of more than `max_length` tokens is read in parts, so that every word has its tag learnt and scored; a
    part ends where no span goes on, if there is such a place in it.
    """

    link: Link | None = None

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        labels: tuple[str, ...],
        max_length: int,
        teacher_tokenizer: "PreTrainedTokenizerBase | None" = None,
    ) -> None:
        """A task.

        Args:
            tokenizer: a fast one, with a padding token.
            labels: the tags: O, B-TYPE, I-TYPE.
            max_length: tokens of a part of a sentence, special ones included.
            teacher_tokenizer: another one, where the teacher reads other tokens than the student.
        """
        self.processor = tokenizer
        self.teacher_processor = teacher_tokenizer
        self.labels = labels
        self._readers = [WordReader.of(each, max_length) for each in (tokenizer, teacher_tokenizer) if each is not None]
        self._inside = np.array([label.startswith("I-") for label in labels])

    @classmethod
    def build(cls, readers: Readers, labels: tuple[str, ...], model: ModelConfig) -> Self:
        """See `Task.build`."""
        return cls(readers.student, labels, model.max_length, readers.teacher)

    @cached_property
    def encoding(self) -> str:
        """SHA-256 of the tokenizers."""
        return "+".join(digest(reader.tokenizer, "token-classification") for reader in self._readers)

    def encode(self, dataset: "Dataset") -> "pa.Table":
        """Tokenise the columns `words` (list of str) and `label` (list of int) of a data set.

        Returns:
            Columns `tokens` (int32 ids of all pieces, no special ones) and `label` (int32, one for each piece), and
            the same by a tokenizer of the teacher's own as `teacher-tokens` and `teacher-label`. A word of which a
            tokenizer leaves nothing is the unknown token.
        """
        return self._encoded(dataset["words"][:], dataset["label"][:])

    def made_up(self) -> "pa.Table":
        """Two examples of nobody, as `encode` returns them."""
        return self._encoded([["a"], ["b", "c"]], [[0], [0, 0]])

    def _encoded(self, sentences: Sequence[Sequence[str]], tags: Sequence[Sequence[int]]) -> "pa.Table":
        import pyarrow as pa

        kind = pa.large_list(pa.int32())
        columns: dict[str, Any] = {}
        for prefix, reader in zip(("", "teacher-"), self._readers, strict=False):
            tokens, labels = [], []
            for start in range(0, len(sentences), CHUNK):
                pieces = reader.read(sentences[start : start + CHUNK], tags[start : start + CHUNK])
                tokens.extend(pieces.ids)
                labels.extend(pieces.labels)
            columns |= {f"{prefix}tokens": pa.array(tokens, kind), f"{prefix}label": pa.array(labels, kind)}
        return pa.table(columns)

    def batches(
        self, examples: "pa.Table", batch_size: int, order: Sequence[int] | None = None
    ) -> Iterator[dict[str, Tensor]]:
        """Batches of sentences of similar length, padded to their own longest.

        Args:
            examples: what `encode` returned.
            batch_size: sentences of a batch; one batch of a window may hold fewer.
            order: indices to go through, repeats allowed; None: each example once.

        Yields:
            `input_ids`, `attention_mask` (1: token, 0: padding) and `labels` (`UNLABELLED`: none), int64
            [parts, longest]: the parts of a sentence follow each other. For a tokenizer of the teacher's own also
            `teacher.input_ids` and `teacher.attention_mask`, [parts, its longest], and `teacher.places`,
            [parts, longest]: where it has the first piece of the word whose first piece is here; elsewhere 0.
        """
        tokens, labels = Rows.of(examples["tokens"]), Rows.of(examples["label"])
        for rows in by_length(tokens, len(examples), batch_size, order):
            if self.teacher_processor is None:
                parts = [(row, part) for row in rows for part in self._parts(labels[row])]
                yield self._batch(
                    [tokens[row][part] for row, part in parts], [labels[row][part] for row, part in parts]
                )
            else:
                yield self._common_batch(examples, rows)

    def task_loss(self, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """Cross-entropy, mean over the labelled pieces.

        Args:
            logits: [parts, length, tags].
            labels: int64 [parts, length].
            weights: of the tags, [tags]; None: all alike.

        Returns:
            A scalar of at least float32.
        """
        return weighted_cross_entropy(logits[labels != UNLABELLED], labels[labels != UNLABELLED], weights)

    def divergence(self, target_logits: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """KL(softmax(target) || softmax(logits)) at temperature 1, mean over the labelled pieces.

        Args:
            target_logits: [parts, length, tags]; a gradient flows into them unless they are detached.
            logits: [parts, length, tags].
            labels: int64 [parts, length].

        Returns:
            A scalar of at least float32.
        """
        labelled = labels != UNLABELLED
        return softmax_divergence(target_logits[labelled], logits[labelled])

    def scores(self) -> "SpanScores":
        """Fresh scores."""
        return SpanScores(self.labels)

    def _batch(self, ids: "list[NDArray[Any]]", tags: "list[NDArray[Any]]") -> dict[str, Tensor]:
        reader = self._readers[0]
        none = [np.full(len(special), UNLABELLED) for special in (reader.before, reader.after)]
        return self._padded(reader, ids) | {
            "labels": padded([np.concatenate([none[0], line, none[1]]) for line in tags], UNLABELLED)
        }

    def _common_batch(self, examples: "pa.Table", rows: Sequence[int]) -> dict[str, Tensor]:
        """A batch whose parts both tokenizers have room for."""
        own, others = self._readers
        names = ("tokens", "label", "teacher-tokens", "teacher-label")
        tokens, labels, theirs, marks = (Rows.of(examples[name]) for name in names)
        parts = [
            (row, part)
            for row in rows
            for part in common_parts((labels[row], marks[row]), (own.room, others.room), self._inside)
        ]
        batch = self._batch(
            [tokens[row][part.pieces[0]] for row, part in parts], [labels[row][part.pieces[0]] for row, part in parts]
        )
        places = torch.zeros_like(batch["input_ids"])
        for line, (_, part) in zip(places, parts, strict=True):
            here, there = (torch.from_numpy(firsts) for firsts in part.firsts)
            line[here + len(own.before)] = there + len(others.before)
        teacher = self._padded(others, [theirs[row][part.pieces[1]] for row, part in parts]) | {PLACES: places}
        return batch | {f"{TEACHER}{name}": tensor for name, tensor in teacher.items()}

    @staticmethod
    def _padded(reader: WordReader, ids: "list[NDArray[Any]]") -> dict[str, Tensor]:
        return tokens_and_mask([reader.whole(line) for line in ids], reader.tokenizer)

    def _parts(self, labels: "NDArray[np.int32]") -> Iterator[slice]:
        """Where the parts of a sentence with these labels begin and end."""
        start, room = 0, self._readers[0].room
        while len(labels) - start > room:
            ends = np.arange(start + 1, start + room + 1)
            at = labels[ends]
            good = ends[(at != UNLABELLED) & ~self._inside[np.maximum(at, 0)]]
            end = int(good[-1] if len(good) else ends[-1])
            yield slice(start, end)
            start = end
        yield slice(start, None)


class SpanScores:
    """Micro-averaged F1, precision and recall of spans by seqeval (strict IOB2), accuracy and mean loss of words.

    In strict IOB2 a predicted I- that follows no tag of its type is no span. Where there is no span to find, only
    accuracy and loss are defined.
    """

    def __init__(self, labels: tuple[str, ...]) -> None:
        self._labels = labels
        self._gold: list[list[str]] = []
        self._predicted: list[list[str]] = []
        self._loss = 0.0

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Take in a batch: logits [parts, length, tags], labels int64 [parts, length], on any device."""
        logits, labels = full(logits.detach()).cpu(), labels.cpu()
        labelled = labels != UNLABELLED
        self._loss += float(nn.functional.cross_entropy(logits[labelled], labels[labelled], reduction="sum"))
        for gold, predicted, mask in zip(labels, logits.argmax(dim=-1), labelled, strict=True):
            if mask.any():
                self._gold.append(self._named(gold[mask]))
                self._predicted.append(self._named(predicted[mask]))

    def compute(self) -> dict[str, float]:
        """Scores of all words so far, of which there is at least one.

        Returns:
            `accuracy` and `loss`; where there is a span also `span-f1`, `precision` (0 where none is predicted) and
            `recall`.

        Raises:
            RunError: the loss is not finite.
        """
        from seqeval.metrics import accuracy_score
        from seqeval.metrics.v1 import precision_recall_fscore_support
        from seqeval.scheme import IOB2

        loss = finite(self._loss / sum(map(len, self._gold)))
        scores = {}
        if any(tag.startswith("B-") for line in self._gold for tag in line):
            precision, recall, f1, _ = precision_recall_fscore_support(
                self._gold, self._predicted, average="micro", scheme=IOB2, zero_division=0
            )
            scores = {"span-f1": float(f1), "precision": float(precision), "recall": float(recall)}
        return scores | {"accuracy": float(accuracy_score(self._gold, self._predicted)), "loss": loss}

    def _named(self, tags: Tensor) -> list[str]:
        return [self._labels[tag] for tag in tags.tolist()]
