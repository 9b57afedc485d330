"""Small random encoders of three families with a tokenizer of a few words, and what reads them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
)

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.models.hub import load_tokenizer
from fedkd_flwr.models.model_card import About
from fedkd_flwr.models.text import build_classifier

LABELS = ("ham", "spam", "eggs")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghi"]
TEXTS = ["a b c d e f g", "h"]

_SHARED: dict[str, Any] = {"vocab_size": len(WORDS), "max_position_embeddings": 40}
BERT = _SHARED | {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": lambda: BertModel(BertConfig(**BERT)),
    "roberta": lambda: RobertaModel(RobertaConfig(**BERT, pad_token_id=0)),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(**_SHARED, dim=16, n_layers=3, n_heads=2, hidden_dim=32, dropout=0.2)
    ),
}


def save(model: PreTrainedModel, folder: Path, words: list[str] = WORDS) -> str:
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer.from_pretrained(folder).save_pretrained(folder)
    return str(folder)


def build(reference: str, **changes: Any) -> PreTrainedModel:
    arguments = {"num_layers": 2, "labels": LABELS, "pooling": "mean", "attentions": False, "seed": 0}
    return build_classifier(reference, **(arguments | changes))


def batch(reference: str) -> dict[str, torch.Tensor]:
    encoded = load_tokenizer(reference)(TEXTS, padding=True, return_tensors="pt")
    return {name: encoded[name] for name in ("input_ids", "attention_mask")}


def about(config: dict[str, Any] | None = None, **changes: Any) -> About:
    """A student after a round of the default run with these changes."""
    return About(RunConfig.parse(config or {}), "student", 1, **changes)
