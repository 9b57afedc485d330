"""Image classifiers on pretrained encoders, stock classes of `transformers`.

All of a model learns and is shared, its patch embeddings too: they are a small part of it, and one made from a config
has no others. Text models keep theirs frozen, where they are most of the model.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedkd_flwr.distillation import batch_norms
from fedkd_flwr.models.hub import read_config, reading, resolve
from fedkd_flwr.models.layers import keep_layers
from fedkd_flwr.models.text import from_checkpoint

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedConfig, PreTrainedModel


_MOMENTUM = 0.1
"""Share of the last batch in running statistics, at most. The configs of EfficientNet and MobileNet have TensorFlow's
number (0.99, 0.997), the share of all batches before: PyTorch would keep next to nothing but the last batch."""


def load_image_processor(reference: str) -> "BaseImageProcessor":
    """The image processor of a checkpoint.

    Raises:
        ModelError: it cannot be read.
    """
    from transformers import AutoImageProcessor

    with reading(reference):
        return AutoImageProcessor.from_pretrained(resolve(reference), trust_remote_code=False)


def has_layers(config: "PreTrainedConfig") -> bool:
    """Whether a model is a row of layers of one shape, of which the first are a smaller model of its kind.

    Stages of layers of several shapes are none: convolutional and hierarchical models.
    """
    return hasattr(config, "num_hidden_layers") and not hasattr(config, "depths")


def build_image_classifier(
    reference: str, *, num_layers: int | None, labels: Sequence[str], attentions: bool, seed: int
) -> "PreTrainedModel":
    """A float32 image classifier on a pretrained encoder; all of it learns.

    Args:
        reference: a local folder or a Hugging Face id.
        num_layers: keep the encoder's first so many layers, where it is a row of layers; None: all.
        labels: names of the classes.
        attentions: whether it must be able to return attention probabilities.
        seed: determines all new weights; the global random state is left as it was.

    Returns:
        A model in training mode. Called with `pixel_values` (float32 [batch, channels, height, width]) it returns
        `logits` [batch, classes], and hidden states and attentions as every model of `transformers`.

    Raises:
        ModelError: the checkpoint cannot be read, or lacks weights of the encoder.
    """
    from transformers import AutoModelForImageClassification

    config = read_config(reference)
    if num_layers is not None and has_layers(config) and num_layers != config.num_hidden_layers:
        with reading(reference, f"be cut to {num_layers} of its {config.num_hidden_layers} layers"):
            keep_layers(config, num_layers)
    model = from_checkpoint(AutoModelForImageClassification, reference, config, labels, attentions, seed)
    for layer in batch_norms(model).values():
        layer.momentum = min(layer.momentum or 1.0, _MOMENTUM)
    return model.train()


def image_head(model: "PreTrainedModel") -> Callable[[Tensor, Mapping[str, Tensor]], Tensor]:
    """What an image classifier makes of its last hidden states: a linear map of the first (and the mean of the others).

    Families that classify otherwise do not nest: `Nested` compares.
    """

    def apply(hidden: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        pooled = hidden[:, 0]
        if model.classifier.in_features == 2 * hidden.shape[-1]:
            pooled = torch.cat([pooled, hidden[:, 1:].mean(dim=1)], dim=1)
        logits: Tensor = model.classifier(pooled)
        return logits

    return apply


def noise(model: "PreTrainedModel") -> dict[str, Tensor]:
    """A batch of two images of random pixels, of the size that a model's config says."""
    size = model.config.image_size
    sides = (size, size) if isinstance(size, int) else tuple(size)
    generator = torch.Generator().manual_seed(0)
    return {"pixel_values": torch.randn(2, model.config.num_channels, *sides, generator=generator)}
