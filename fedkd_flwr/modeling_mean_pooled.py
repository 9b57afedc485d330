"""Text classifier on the mean of an encoder's last hidden states; exported models carry this file."""

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


class MeanPooledClassifier(PreTrainedModel):  # type: ignore[misc]
    """Encoder, mean over the tokens that are not padding, dropout, linear head.

    The encoder is named as in its family's own classifiers ("bert" in BERT), and the config is the family's:
    therefore `AutoModel.from_pretrained` finds the encoder. The head's name is nobody else's: therefore the
    family's classifier cannot take it for its own.
    """

    config: PretrainedConfig
    # The encoder has chosen its attention before this class is asked: whatever it supports, this class does.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(self, config: PretrainedConfig, encoder: PreTrainedModel | None = None) -> None:
        """Wrap an encoder, or a new one of this config; the head is new."""
        family = AutoModelForTextEncoding if type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING else AutoModel
        encoder = family.from_config(config) if encoder is None else encoder
        super().__init__(config)
        self.loss_type = "ForSequenceClassification"
        self.base_model_prefix = encoder.base_model_prefix
        setattr(self, self.base_model_prefix, encoder)
        rates = (getattr(config, name, None) for name in ("classifier_dropout", "hidden_dropout_prob", "dropout"))
        self.dropout = nn.Dropout(next((rate for rate in rates if rate is not None), 0.1))
        self.head = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **inputs: Any,
    ) -> SequenceClassifierOutput:
        """Logits [batch, labels]; hidden states and attentions if asked for; the loss if labels are given.

        Args:
            input_ids: int64 [batch, length].
            attention_mask: [batch, length], 0 at padding; None: no padding.
            labels: int64 [batch], or as the problem type of the config needs them.
            inputs: what else the encoder takes, such as `output_hidden_states`.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        output = self.base_model(input_ids, attention_mask=mask, **(inputs | {"return_dict": True}))
        logits = self.classify(output.last_hidden_state, mask)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return SequenceClassifierOutput(loss, logits, output.hidden_states, output.attentions)

    def classify(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Logits [batch, labels] of hidden states [batch, length, width] under a mask [batch, length]."""
        weight = mask.unsqueeze(-1).float()
        pooled = (hidden.float() * weight).sum(1) / weight.sum(1).clamp(min=1)
        logits: Tensor = self.head(self.dropout(pooled.to(hidden.dtype)))
        return logits


MeanPooledClassifier.register_for_auto_class("AutoModelForSequenceClassification")
