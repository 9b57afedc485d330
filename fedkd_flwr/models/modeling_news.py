"""News recommender on an encoder of titles; exported models carry this file."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    AutoModel,
    AutoModelForTextEncoding,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput

NEWS_SIZE = 64
"""Width of the vectors of news and users."""

ATTENTION_SIZE = 200
"""Width inside additive attention."""


class AdditiveAttention(nn.Module):
    """Mean of vectors v, each weighted by softmax(q . tanh(V v + b))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.keys = nn.Linear(width, ATTENTION_SIZE)
        self.query = nn.Linear(ATTENTION_SIZE, 1, bias=False)

    def forward(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """[rows, width] of vectors [rows, n, width], those that count by mask [rows, n], not 0."""
        scores = self.query(torch.tanh(self.keys(vectors))).squeeze(-1)
        weights = scores.masked_fill(mask == 0, torch.finfo(scores.dtype).min).softmax(-1)
        mean: Tensor = (weights.to(vectors.dtype).unsqueeze(-1) * vectors).sum(-2)
        return mean


class NewsRecommender(PreTrainedModel):  # type: ignore[misc]
    """News: encoder, additive attention over the title's tokens, dropout, linear map to 64. User: additive attention
    over the clicked news, or a vector of their own where they have not clicked yet. Score: dot product.

    The recommender of Wu et al., Nature Communications 13:2032 (2022); the vector of newcomers is ours.
    The encoder is named as in its family's own models ("bert" in BERT), and the config is the family's: therefore
    `AutoModel.from_pretrained` finds the encoder and, with `trust_remote_code=True`, the recommender.
    """

    config_class = PretrainedConfig
    # The encoder has chosen its attention before this class is asked: whatever it supports, this class does.
    _supports_sdpa = True
    _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(self, config: PretrainedConfig, encoder: PreTrainedModel | None = None) -> None:
        """Wrap an encoder, or a new one of this config; the rest is new."""
        family = AutoModelForTextEncoding if type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING else AutoModel
        encoder = family.from_config(config) if encoder is None else encoder
        super().__init__(config)
        self.base_model_prefix = encoder.base_model_prefix
        setattr(self, self.base_model_prefix, encoder)
        rates = (getattr(config, name, None) for name in ("classifier_dropout", "hidden_dropout_prob", "dropout"))
        self.dropout = nn.Dropout(next((rate for rate in rates if rate is not None), 0.1))
        self.title_attention = AdditiveAttention(config.hidden_size)
        self.news = nn.Linear(config.hidden_size, NEWS_SIZE)
        self.user_attention = AdditiveAttention(NEWS_SIZE)
        self.newcomer = nn.Parameter(torch.zeros(NEWS_SIZE))
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        history: Tensor,
        candidates: Tensor,
        attention_mask: Tensor | None = None,
        **inputs: Any,
    ) -> SequenceClassifierOutput:
        """Logits [users, candidates] (-inf at padding); hidden states and attentions of the titles if asked for.

        Args:
            input_ids: int64 [titles, length], each title once.
            history: int64 [users, clicked], which titles a user has clicked, -1: padding.
            candidates: int64 [users, candidates], which titles are to be scored for them, -1: padding.
            attention_mask: [titles, length], 0 at padding; None: no padding.
            inputs: what else the encoder takes, such as `output_hidden_states`.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        output = self.base_model(input_ids, attention_mask=mask, **(inputs | {"return_dict": True}))
        logits = self.rank(output.last_hidden_state, mask, history, candidates)
        return SequenceClassifierOutput(None, logits, output.hidden_states, output.attentions)

    def encode_news(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Vectors [titles, 64] of titles, int64 [titles, length] both."""
        hidden = self.base_model(input_ids, attention_mask=attention_mask).last_hidden_state
        return self._vectors(hidden, attention_mask)

    def encode_user(self, clicked: Tensor, mask: Tensor | None = None) -> Tensor:
        """Vectors [users, 64] of users by their clicked news [users, clicked, 64], those that count by mask, not 0."""
        mask = torch.ones(clicked.shape[:2], device=clicked.device) if mask is None else mask
        if not clicked.shape[1]:
            return self.newcomer.expand(len(clicked), -1)
        known = (mask != 0).any(-1, keepdim=True)
        return torch.where(known, self.user_attention(clicked, mask), self.newcomer.to(clicked.dtype))

    def rank(self, hidden: Tensor, mask: Tensor, history: Tensor, candidates: Tensor) -> Tensor:
        """Logits as of `forward`, from the titles' last hidden states [titles, length, width] and mask."""
        news = self._vectors(hidden, mask).float()
        clicked, offered = (nn.functional.embedding(titles.clamp(min=0), news) for titles in (history, candidates))
        users = self.encode_user(clicked, history >= 0)
        scores: Tensor = (offered * users.float().unsqueeze(1)).sum(-1)
        return scores.masked_fill(candidates < 0, -torch.inf)

    def _vectors(self, hidden: Tensor, mask: Tensor) -> Tensor:
        vectors: Tensor = self.news(self.dropout(self.title_attention(hidden, mask)))
        return vectors


NewsRecommender.register_for_auto_class("AutoModel")
