"""A tag per word (IOB2): the first piece of a word carries its tag, the others none."""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from fedkd_flwr.errors import RunError
from fedkd_flwr.tasks.text import CHUNK, Rows, by_length, digest, full, padded

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

UNLABELLED = -100
"""Label of pieces that carry no tag: special tokens, padding, all but the first piece of a word."""


class TokenClassification:
    """Tags of words: cross-entropy and KL divergence over first pieces, F1 of spans.

    A sentence of more than `max_length` tokens is read in parts, so that every word has its tag learnt and scored; a
    part ends where no span goes on, if there is such a place in it.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", labels: tuple[str, ...], max_length: int) -> None:
        """A task.

        Args:
            tokenizer: a fast one, with a padding token.
            labels: the tags: O, B-TYPE, I-TYPE.
            max_length: tokens of a part of a sentence, special ones included.
        """
        self.processor = tokenizer
        self.labels = labels
        special = tokenizer(["a"], is_split_into_words=True)
        places = [place for place, word in enumerate(special.word_ids()) if word is not None]
        ids = np.array(special["input_ids"])
        self._before, self._after = ids[: places[0]], ids[places[-1] + 1 :]
        self._room = max(1, max_length - len(self._before) - len(self._after))
        self._inside = np.array([label.startswith("I-") for label in labels])

    @cached_property
    def encoding(self) -> str:
        """SHA-256 of the tokenizer."""
        return digest(self.processor, "token-classification")

    def encode(self, dataset: "Dataset") -> "pa.Table":
        """Tokenise the columns `words` (list of str) and `label` (list of int) of a data set.

        Returns:
            Columns `tokens` (int32 ids of all pieces, no special ones) and `label` (int32, one for each piece). A word
            of which the tokenizer leaves nothing is the unknown token.
        """
        import pyarrow as pa

        sentences, tags = dataset["words"][:], dataset["label"][:]
        tokens, labels = [], []
        for start in range(0, len(sentences), CHUNK):
            chunk = sentences[start : start + CHUNK]
            encoded = self.processor(chunk, is_split_into_words=True, add_special_tokens=False, verbose=False)
            for row, sentence in enumerate(chunk):
                ids, carried = self._aligned(
                    encoded["input_ids"][row], encoded.word_ids(row), tags[start + row], len(sentence)
                )
                tokens.append(ids)
                labels.append(carried)
        pieces = pa.large_list(pa.int32())
        return pa.table({"tokens": pa.array(tokens, pieces), "label": pa.array(labels, pieces)})

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
            [parts, longest]: the parts of a sentence follow each other.
        """
        tokens, labels = Rows.of(examples["tokens"]), Rows.of(examples["label"])
        none = [np.full(len(special), UNLABELLED) for special in (self._before, self._after)]
        for rows in by_length(tokens, len(examples), batch_size, order):
            parts = [(row, part) for row in rows for part in self._parts(labels[row])]
            ids = [np.concatenate([self._before, tokens[row][part], self._after]) for row, part in parts]
            tags = [np.concatenate([none[0], labels[row][part], none[1]]) for row, part in parts]
            yield {
                "input_ids": padded(ids, self.processor.pad_token_id),
                "attention_mask": padded([np.ones_like(line) for line in ids], 0),
                "labels": padded(tags, UNLABELLED),
            }

    def task_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy, mean over the labelled pieces.

        Args:
            logits: [parts, length, tags].
            labels: int64 [parts, length].

        Returns:
            A scalar of at least float32.
        """
        return nn.functional.cross_entropy(full(logits[labels != UNLABELLED]), labels[labels != UNLABELLED])

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
        target, output = (nn.functional.log_softmax(full(x[labelled]), dim=-1) for x in (target_logits, logits))
        return nn.functional.kl_div(output, target, log_target=True, reduction="batchmean")

    def scores(self) -> "SpanScores":
        """Fresh scores."""
        return SpanScores(self.labels)

    def _aligned(
        self, ids: list[int], words: list[int | None], tags: list[int], count: int
    ) -> tuple[list[int], list[int]]:
        """The pieces of a sentence of `count` words, and the tag that each carries."""
        pieces: list[list[int]] = [[] for _ in range(count)]
        for piece, word in zip(ids, words, strict=True):
            if word is not None:
                pieces[word].append(piece)
        unknown = self.processor.unk_token_id
        pieces = [piece or [self.processor.pad_token_id if unknown is None else unknown] for piece in pieces]
        carried = [[tag] + [UNLABELLED] * (len(piece) - 1) for piece, tag in zip(pieces, tags, strict=True)]
        return list(chain.from_iterable(pieces)), list(chain.from_iterable(carried))

    def _parts(self, labels: "NDArray[np.int32]") -> Iterator[slice]:
        """Where the parts of a sentence with these labels begin and end."""
        start = 0
        while len(labels) - start > self._room:
            ends = np.arange(start + 1, start + self._room + 1)
            at = labels[ends]
            good = ends[(at != UNLABELLED) & ~self._inside[np.maximum(at, 0)]]
            end = int(good[-1] if len(good) else ends[-1])
            yield slice(start, end)
            start = end
        yield slice(start, None)


class SpanScores:
    """Micro-averaged F1, precision and recall of spans by seqeval (strict IOB2), accuracy and mean loss of words.

    In strict IOB2 a predicted I- that follows no tag of its type is no span.
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
            `span-f1`, `precision` and `recall` (0 where there is no span), `accuracy` and `loss`.

        Raises:
            RunError: the loss is not finite.
        """
        from seqeval.metrics import accuracy_score
        from seqeval.metrics.v1 import precision_recall_fscore_support
        from seqeval.scheme import IOB2

        loss = self._loss / sum(map(len, self._gold))
        if not math.isfinite(loss):
            raise RunError(f"the loss on the held-out examples is {loss}: the model has diverged, lower learning-rate")
        precision, recall, f1, _ = precision_recall_fscore_support(
            self._gold, self._predicted, average="micro", scheme=IOB2, zero_division=0
        )
        scores: dict[str, Any] = {
            "span-f1": f1,
            "precision": precision,
            "recall": recall,
            "accuracy": accuracy_score(self._gold, self._predicted),
            "loss": loss,
        }
        return {name: float(value) for name, value in scores.items()}

    def _named(self, tags: Tensor) -> list[str]:
        return [self._labels[tag] for tag in tags.tolist()]
