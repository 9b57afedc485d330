"""What tasks on tokenised text have in common: batches of similar length, and what decides on the tokens."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fedkd_flwr.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

WINDOW = 16
"""Batches among which texts are sorted by length."""

CHUNK = 4096
"""Texts tokenised at a time."""


@dataclass(frozen=True)
class Rows:
    """Rows of whole numbers where they lie, in memory or on disk: row i is values[ends[i] : ends[i + 1]]."""

    values: "NDArray[Any]"
    ends: "NDArray[np.int64]"

    @classmethod
    def of(cls, column: "pa.ChunkedArray") -> "Rows":
        """Those of a list column of one chunk."""
        (rows,) = column.chunks
        ends: NDArray[Any] = np.from_dlpack(rows.offsets)
        return cls(np.from_dlpack(rows.values), ends)

    def length(self, row: int) -> int:
        """Numbers in a row."""
        return int(self.ends[row + 1] - self.ends[row])

    def __getitem__(self, row: int) -> "NDArray[Any]":
        return self.values[self.ends[row] : self.ends[row + 1]]


def by_length(rows: Rows, count: int, batch_size: int, order: Sequence[int] | None) -> Iterator[list[int]]:
    """Batches of the order, each of rows of similar length.

    Every `WINDOW` batches of the order are sorted by length before they are cut into batches, which then come
    in the order of their first rows: a third less time than batches cut from the order itself.

    Args:
        rows: the examples' tokens.
        count: of examples.
        batch_size: examples of a batch; one batch of a window may hold fewer.
        order: indices to go through, repeats allowed; None: each example once.
    """
    order = range(count) if order is None else order
    for start in range(0, len(order), WINDOW * batch_size):
        window = list(order[start : start + WINDOW * batch_size])
        places = sorted(range(len(window)), key=lambda place: rows.length(window[place]))
        for batch in sorted(sorted(places[i : i + batch_size]) for i in range(0, len(places), batch_size)):
            yield [window[place] for place in batch]


@dataclass(frozen=True)
class Tokens:
    """What a tokenizer makes of texts, or of pairs of texts.

    Attributes:
        ids: of each one's tokens, special ones included, cut to a maximal length; lists of int32.
        lengths: how many there were before, int32.
        segments: of pairs, which text each token is of, lists of int8; None: the tokenizer does not say.
    """

    ids: "pa.Array"
    lengths: "pa.Array"
    segments: "pa.Array | None" = None


def tokenised(
    texts: Sequence[str],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    pairs: Sequence[str] | None = None,
) -> Tokens:
    """Tokens of texts, each with the second one of its pair where there are `pairs`; of both the longer is cut first.

    Raises:
        ConfigError: a pair leaves no room for a token of each text.
    """
    import pyarrow as pa

    least = tokenizer.num_special_tokens_to_add(pair=True) + 2
    if pairs is not None and max_length < least:
        raise ConfigError(
            f"run-config key 'model.max-length' is {max_length} but a pair of texts takes {least} or more: raise it"
        )
    marked = pairs is not None and marks_segments(tokenizer)
    plain = {"return_attention_mask": False, "return_token_type_ids": marked, "verbose": False}
    tokens, lengths, segments = [], [], []
    for start in range(0, len(texts), CHUNK):
        chunk = [texts[start : start + CHUNK], *([pairs[start : start + CHUNK]] if pairs is not None else [])]
        encoded = tokenizer(*chunk, truncation="longest_first", max_length=max_length, **plain)
        counts = [len(row) for row in encoded["input_ids"]]
        if full := [row for row, count in enumerate(counts) if count >= max_length]:
            whole = tokenizer(*([column[row] for row in full] for column in chunk), **plain)["input_ids"]
            for row, found in zip(full, whole, strict=True):
                counts[row] = len(found)
        tokens.append(pa.array(encoded["input_ids"], pa.large_list(pa.int32())))
        lengths.append(pa.array(counts, pa.int32()))
        if marked:
            segments.append(pa.array(encoded["token_type_ids"], pa.large_list(pa.int8())))
    joined = pa.concat_arrays(segments) if marked else None
    return Tokens(pa.concat_arrays(tokens), pa.concat_arrays(lengths), joined)


def marks_segments(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether a tokenizer says of a pair of texts which tokens are of which."""
    return "token_type_ids" in tokenizer.model_input_names


def cuts(*encoded: "pa.Table") -> tuple[int, int]:
    """How many texts of encoded examples have been cut, and the tokens of the longest before; 0, 0: none ever are."""
    cut, longest = 0, 0
    for table in encoded:
        if "length" in table.column_names:
            lengths = np.from_dlpack(table["length"].chunk(0))
            tokens = np.diff(Rows.of(table["tokens"]).ends)
            cut += int((lengths > tokens).sum())
            longest = max(longest, int(lengths.max(initial=0)))
    return cut, longest


def tokens_and_mask(tokens: Sequence["NDArray[Any]"], tokenizer: "PreTrainedTokenizerBase") -> dict[str, Tensor]:
    """`input_ids`, padded, and `attention_mask` (1: token, 0: padding), int64 [texts, longest]."""
    return {
        "input_ids": padded(tokens, tokenizer.pad_token_id),
        "attention_mask": padded([np.ones_like(text) for text in tokens], 0),
    }


def padded(rows: Sequence["NDArray[Any]"], filler: int) -> Tensor:
    """The rows as int64 [rows, longest], the rest filled."""
    block = np.full((len(rows), max(map(len, rows))), filler, np.int64)
    for line, row in zip(block, rows, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(block)


def read_alike(one: "PreTrainedTokenizerBase", other: "PreTrainedTokenizerBase") -> bool:
    """Whether two tokenizers make the same ids of any text, however each was saved."""
    return _reading(one) == _reading(other)


def digest(tokenizer: "PreTrainedTokenizerBase", *settings: object) -> str:
    """SHA-256 of these settings and of all that decides on a tokenizer's ids.

    How its last call cut and padded does not, though it remembers that too.
    """
    described = {"class": type(tokenizer).__name__, "init": tokenizer.init_kwargs, **_reading(tokenizer)}
    return hashlib.sha256(json.dumps([settings, described], sort_keys=True, default=str).encode()).hexdigest()


def _reading(tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    if tokenizer.is_fast:
        backend = json.loads(tokenizer.backend_tokenizer.to_str())
        return {"backend": backend | {"truncation": None, "padding": None}}
    return {"vocabulary": tokenizer.get_vocab()}
