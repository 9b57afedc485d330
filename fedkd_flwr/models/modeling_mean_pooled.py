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

    Where the config has `head_label_shares`, the head's logits hold for examples of which such shares have each label.
    `from_pretrained(folder, label_shares=[...])` gives those of the examples at hand: its logits then hold for them
    (logit adjustment; Menon et al., ICLR 2021).
    """

    config_class = PretrainedConfig
    # The encoder has chosen its attention before this class is asked: whatever it supports, this class does.
    _supports_sdpa = True
    _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

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
        self._require_shares()
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
        inputs = self.dropout(pooled.to(hidden.dtype))
        added = self._added()
        logits: Tensor = (
            self.head(inputs)
            if added is None
            else nn.functional.linear(inputs, self.head.weight, self.head.bias + added.to(self.head.bias.device))
        )
        return logits

    def _added(self) -> Tensor | None:
        """What logits that hold for the label shares of the head lack to hold for those asked for; None: nothing."""
        asked, held = self._shares("label_shares"), self._shares("head_label_shares")
        if asked == held:
            return None
        priors = (torch.tensor(shares, dtype=torch.float64) for shares in (asked, held))
        sigmoid = self.config.problem_type == "multi_label_classification"
        wanted, there = (prior.logit() if sigmoid else prior.log() for prior in priors)
        return (wanted - there).float()

    def _shares(self, key: str) -> list[float]:
        return [float(share) for share in getattr(self.config, key, None) or ()]

    def _require_shares(self) -> None:
        asked, classes = self._shares("label_shares"), self.config.num_labels
        if asked and not (len(asked) == classes and all(0 < share < 1 for share in asked)):
            raise ValueError(f"label_shares must be {classes} numbers between 0 and 1, one for each label of id2label")


MeanPooledClassifier.register_for_auto_class("AutoModelForSequenceClassification")
