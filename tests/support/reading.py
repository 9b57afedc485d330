"""An attack: how much of the texts of a batch can be read off one update.

It is a span check in the manner of DAGER (Petrov et al., NeurIPS 2024). The gradient of the first layer's query, key
and value weights is a sum of products with the embeddings that the layer reads: its rows lie in their span. These are
frozen and public, so each token can be tried. With dropout of a tenth, a token that was in the batch keeps a distance
of a third from the span. One that was not stays far away, as long as the batch has fewer tokens than the model is wide.
Nothing of order, dropout or initial heads need be known.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedkd_flwr.client.client import Client
from fedkd_flwr.codec import EncodedUpdate
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.data import DataSettings, load_examples
from fedkd_flwr.messages import Refresh, TrainRequest
from fedkd_flwr.models.hub import load_tokenizer, resolve

CHECKPOINT = "minilm-l6"
LINEAGE = "d" * 16
SPECIAL = {101, 102}

ISSUE: dict[str, Any] = {
    "train.learning-rate-warm-up": 0, "codec.error-feedback": "none", "train.linear-probe": "never",
    "train.weight-decay": 0.0,
    "train.local-steps": 1, "train.batch-size": 4, "codec.kind": "dense", "codec.bits": 32,
    "train.max-grad-norm": 1e-9, "train.learning-rate": 1e4,
}  # fmt: skip
"""What makes of AdamW a release of the gradient of four texts."""

CORNER: dict[str, Any] = {
    "train.learning-rate-warm-up": 0, "codec.error-feedback": "none", "train.linear-probe": "never",
    "train.weight-decay": 0.0,
    "train.local-steps": 1, "train.batch-size": 256, "codec.kind": "budget", "codec.budget": "128x",
    "model.max-length": 32,
    "train.max-grad-norm": 0.1, "train.learning-rate": 0.05, "train.head-learning-rate-factor": 1.0,
    "model.student-layers": 1, "distillation.student-kl": 0.0, "num-rounds": 1,
}  # fmt: skip
"""The most that the default policy allows: fewest examples and tokens, least compression, one step, one layer."""


@dataclass(frozen=True)
class Reading:
    """What a span check finds.

    Attributes:
        recovered: share of the tokens that were read which it names.
        wrong: share of the other tokens of the same silo which it names, too.
        ranked: probability that it ranks a token that was read before one that was not; 0.5 is chance.
    """

    recovered: float
    wrong: float
    ranked: float


class Vocabulary:
    """The embeddings that the first layer of a public checkpoint reads."""

    def __init__(self, checkpoint: str = CHECKPOINT) -> None:
        from transformers import AutoModel

        self._embeddings = AutoModel.from_pretrained(resolve(checkpoint)).eval().embeddings

    @torch.no_grad()
    def distances(self, update: Mapping[str, Tensor], tokens: Tensor, length: int, rank: int) -> Tensor:
        """How far tokens are from the span of an update, [tokens], between 0 and 1: the least of all positions.

        Args:
            update: tensors by name, those of the first layer among them.
            tokens: ids, int64 [tokens].
            length: positions that are tried.
            rank: leading directions of the update that make the span.
        """
        layer = [t for name, t in update.items() if "layer.0.attention.self." in name and name.endswith("weight")]
        _, values, directions = torch.linalg.svd(torch.cat(layer).double(), full_matrices=False)
        span = directions[: min(rank, int((values > 1e-4 * values[0]).sum()))].float().T
        parts = self._embeddings
        words = parts.word_embeddings.weight[tokens] + parts.token_type_embeddings.weight[0]
        nearest = torch.ones(len(tokens))
        for position in range(1, length):
            read = parts.LayerNorm(words + parts.position_embeddings.weight[position])
            inside = (read @ span).square().sum(1) / read.square().sum(1)
            nearest = torch.minimum(nearest, 1 - inside)
        return nearest.clamp(min=0).sqrt()


def write_silo(path: Path, config: RunConfig, rows: int, first: int = 0) -> list[str]:
    """Write tweets, evenly from all but the first ones, as the csv file of a silo; returns their labels."""
    tweets = load_examples("tweets", DataSettings.of(config))
    tweets = tweets.select(range(first, len(tweets), len(tweets) // rows))
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *zip(tweets["text"][:], tweets["label"][:], strict=True)])
    return sorted(set(tweets["label"][:]))


def tokens_of(path: Path) -> set[int]:
    """All tokens of the texts in a silo's file."""
    with path.open(newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    return {token for ids in load_tokenizer(CHECKPOINT)(texts)["input_ids"] for token in ids} - SPECIAL


@dataclass(frozen=True)
class Round:
    """One round of an attacked node: the update as it arrives, and the tokens that it was trained on."""

    update: Mapping[str, Tensor]
    tokens: frozenset[int]
    length: int


def attack(raw: Mapping[str, Any], node_config: Mapping[str, Any], changes: Mapping[str, Any]) -> Round:
    """Let a node train one round under a run config of the attacker's choice."""
    node = Client(RunConfig.parse({**raw, **changes}), dict(node_config))
    with _watched(node) as batches:
        reply = node.train(TrainRequest(lineage=LINEAGE, round=1, evaluate=False, refresh=Refresh.of("nothing", 0)))
    tokens = {token for batch in batches for token in batch["input_ids"][batch["attention_mask"].bool()].tolist()}
    length = max(batch["input_ids"].shape[1] for batch in batches)
    return Round(EncodedUpdate.from_bytes(reply.update).decode(), frozenset(tokens - SPECIAL), length)


def read(
    vocabulary: Vocabulary, found: Round, there: Iterable[int], others: Iterable[int], threshold: float | None = None
) -> Reading:
    """Check tokens against an update.

    Args:
        vocabulary: of the model.
        found: of the update.
        there: tokens that the attack is to name.
        others: tokens of the same kind of texts that it is not to name.
        threshold: distance below which a token is named; None: the attacker's best choice of rank and threshold of
            which a hundredth of `others` is named.
    """
    tokens = [torch.tensor(sorted(part)) for part in (there, others)]
    readings = []
    for rank in (384,) if threshold is not None else (32, 64, 100, 150, 250):
        mine, theirs = (vocabulary.distances(found.update, part, found.length, rank) for part in tokens)
        limit = float(theirs.quantile(0.01)) if threshold is None else threshold
        named = [float((part <= limit).float().mean()) for part in (mine, theirs)]
        readings.append(Reading(*named, ranked=float((mine[:, None] < theirs[None]).float().mean())))
    return max(readings, key=lambda reading: reading.recovered)


@contextmanager
def _watched(node: Client) -> Iterator[list[dict[str, Tensor]]]:
    """The batches that a node trains on, which no attacker sees."""
    task, seen = node._prepared.task, []
    batches = task.batches

    def watch(examples: Any, size: int, order: Sequence[int] | None = None) -> Iterator[dict[str, Tensor]]:
        for batch in batches(examples, size, order):
            seen.append(batch)
            yield batch

    task.batches = watch  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        task.batches = batches  # type: ignore[method-assign]
