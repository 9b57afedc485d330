"""How tokenizers read words: the pieces of each, and parts of a sentence that one or two tokenizers have room for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

UNLABELLED = -100
"""Label of pieces that carry no tag: special tokens, padding, all but the first piece of a word."""


@dataclass(frozen=True)
class WordReader:
    """A tokenizer on words.

    Attributes:
        tokenizer: a fast one, with a padding token.
        before, after: ids of the special tokens around a sentence.
        room: pieces that fit between them.
    """

    tokenizer: "PreTrainedTokenizerBase"
    before: "NDArray[np.int64]"
    after: "NDArray[np.int64]"
    room: int

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> "WordReader":
        """The reader of parts of at most `max_length` tokens, special ones included."""
        special = tokenizer(["a"], is_split_into_words=True)
        places = [place for place, word in enumerate(special.word_ids()) if word is not None]
        ids = np.array(special["input_ids"])
        before, after = ids[: places[0]], ids[places[-1] + 1 :]
        return cls(tokenizer, before, after, max(1, max_length - len(before) - len(after)))

    def read(self, sentences: Sequence[Sequence[str]], tags: Sequence[Sequence[int]]) -> "Pieces":
        """The pieces of the words and, of each first one, the tag of its word.

        A word of which the tokenizer leaves nothing is the unknown token.
        """
        encoded = self.tokenizer(sentences, is_split_into_words=True, add_special_tokens=False, verbose=False)
        found = [
            self._aligned(encoded["input_ids"][row], encoded.word_ids(row), tags[row], len(sentence))
            for row, sentence in enumerate(sentences)
        ]
        return Pieces([ids for ids, _ in found], [carried for _, carried in found])

    def whole(self, ids: "NDArray[np.int64]") -> "NDArray[np.int64]":
        """Pieces with the special tokens around them."""
        return np.concatenate([self.before, ids, self.after])

    def _aligned(
        self, ids: list[int], words: list[int | None], tags: Sequence[int], count: int
    ) -> tuple[list[int], list[int]]:
        """The pieces of a sentence of `count` words, and the tag that each carries."""
        pieces: list[list[int]] = [[] for _ in range(count)]
        for piece, word in zip(ids, words, strict=True):
            if word is not None:
                pieces[word].append(piece)
        unknown = self.tokenizer.unk_token_id
        pieces = [piece or [self.tokenizer.pad_token_id if unknown is None else unknown] for piece in pieces]
        carried = [[tag] + [UNLABELLED] * (len(piece) - 1) for piece, tag in zip(pieces, tags, strict=True)]
        return list(chain.from_iterable(pieces)), list(chain.from_iterable(carried))


@dataclass(frozen=True)
class Pieces:
    """Ids of the pieces of sentences, and as many labels."""

    ids: list[list[int]]
    labels: list[list[int]]


@dataclass(frozen=True)
class CommonPart:
    """Some words of a sentence, as two tokenizers have them.

    Attributes:
        pieces: theirs, as a slice of the sentence's, for each tokenizer.
        firsts: the first piece of each word, counted from the first of the part, for each tokenizer.
    """

    pieces: tuple[slice, slice]
    firsts: "tuple[NDArray[np.int64], NDArray[np.int64]]"


def common_parts(
    labels: "tuple[NDArray[np.int32], NDArray[np.int32]]", rooms: tuple[int, int], inside: "NDArray[np.bool_]"
) -> Iterator[CommonPart]:
    """Parts of a sentence that fit into the room of two tokenizers, and end where no span goes on if that can be.

    Of a word that is longer than the room the last pieces are left out.

    Args:
        labels: of the sentence's pieces, by tokenizer.
        rooms: pieces that each has room for.
        inside: by tag, whether it goes on with a span.
    """
    starts = [np.append(np.flatnonzero(line != UNLABELLED), len(line)) for line in labels]
    goes_on = inside[labels[0][starts[0][:-1]]]
    start, words = 0, len(goes_on)
    while start < words:
        fits = (int(np.searchsorted(s, s[start] + room, "right")) - 1 for s, room in zip(starts, rooms, strict=True))
        last = max(start + 1, min(fits))
        end = next((e for e in range(last, start, -1) if e == words or not goes_on[e]), last)
        spans = [(s[start], min(s[end], s[start] + room)) for s, room in zip(starts, rooms, strict=True)]
        yield CommonPart(
            (slice(*spans[0]), slice(*spans[1])),
            (starts[0][start:end] - starts[0][start], starts[1][start:end] - starts[1][start]),
        )
        start = end
