"""Trained models as `from_pretrained` folders, written and read."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from fedkd_flwr.disk import replacing
from fedkd_flwr.errors import ModelError
from fedkd_flwr.pretrained import quiet, read_config, reading

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedModel, PreTrainedTokenizerBase


def export(
    model: "PreTrainedModel",
    processor: "PreTrainedTokenizerBase | BaseImageProcessor",
    folder: str | Path,
    added: Tensor | None = None,
    own: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a folder for `from_pretrained`, whole or not at all, with tokenizer or image processor and label names.

    A token classifier is read by `AutoModelForTokenClassification` and `pipeline("token-classification")`, an image
    classifier by `AutoModelForImageClassification` and `pipeline("image-classification")`.
    A mean-pooled classifier keeps its family's config: `AutoModel` reads the encoder from the folder. With
    `trust_remote_code=True`, `AutoModelForSequenceClassification` and `pipeline("text-classification")` read the
    classifier, whose code the folder carries (the pipeline logs that it does not know the class, and works); so does
    `AutoModel` a news recommender. A regressor with `units` (middle, half range) predicts numbers from the folder, not
    scaled ones.

    Args:
        model, processor: what is written.
        folder: where to.
        added: to the logits, [classes].
        own: what is written instead of parameters of the same names.
    """
    middle, half = getattr(model, "units", (added, 1.0))
    tensors: dict[str, Tensor] = {**model.state_dict(), **(own or {})}
    if middle is not None:
        layer = _last_layer(model)
        tensors[f"{layer}.weight"] = half * tensors[f"{layer}.weight"]
        tensors[f"{layer}.bias"] = half * tensors[f"{layer}.bias"] + middle
    with replacing(Path(folder)) as fresh, quiet():
        model.save_pretrained(fresh, state_dict=tensors)
        processor.save_pretrained(fresh)


def require_bias(model: "PreTrainedModel") -> None:
    """Whether something can be added to a model's logits.

    Raises:
        ModelError: its last layer has no bias.
    """
    name = _last_layer(model)
    if model.get_submodule(name).bias is None:
        raise ModelError(
            f"the head {name!r} of {model.config.model_type} models has no bias, so cannot be adjusted to how frequent "
            "labels are: set logit-adjustment to 'never'"
        )


def _last_layer(model: "PreTrainedModel") -> str:
    """The name of the linear layer that a model's outputs come from."""
    names: list[str] = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return names[-1]


def load_classifier(folder: str | Path) -> "PreTrainedModel":
    """An exported classifier, in evaluation mode; runs none of the code in the folder.

    Raises:
        ModelError: the folder cannot be read.
    """
    from transformers import (
        AutoModelForImageClassification,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
    )

    from fedkd_flwr.modeling_mean_pooled import MeanPooledClassifier
    from fedkd_flwr.modeling_news import NewsRecommender

    config = read_config(str(folder))
    (name,) = config.architectures or ("",)
    with reading(str(folder)):
        if name == MeanPooledClassifier.__name__:
            family = MeanPooledClassifier
        elif name == NewsRecommender.__name__:
            family = NewsRecommender
        elif name.endswith("ForTokenClassification"):
            family = AutoModelForTokenClassification
        elif name.endswith("ForImageClassification"):
            family = AutoModelForImageClassification
        else:
            family = AutoModelForSequenceClassification
        return family.from_pretrained(folder, config=config)
