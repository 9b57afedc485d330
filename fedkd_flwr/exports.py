"""Trained models as `from_pretrained` folders, written and read."""

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from fedkd_flwr.models import quiet, read_config, reading

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedModel, PreTrainedTokenizerBase


def export(
    model: "PreTrainedModel", processor: "PreTrainedTokenizerBase | BaseImageProcessor", folder: str | Path
) -> None:
    """Write a folder for `from_pretrained`, with tokenizer or image processor and label names.

    A token classifier is read by `AutoModelForTokenClassification` and `pipeline("token-classification")`, an image
    classifier by `AutoModelForImageClassification` and `pipeline("image-classification")`.
    A mean-pooled classifier keeps its family's config: `AutoModel` reads the encoder from the folder. With
    `trust_remote_code=True`, `AutoModelForSequenceClassification` and `pipeline("text-classification")` read the
    classifier, whose code the folder carries (the pipeline logs that it does not know the class, and works); so does
    `AutoModel` a news recommender. A regressor with `units` (middle, half range) predicts numbers from the folder, not
    scaled ones.
    """
    units = getattr(model, "units", None)
    with quiet():
        model.save_pretrained(folder, state_dict=None if units is None else _in_units(model, *units))
    processor.save_pretrained(folder)


def _in_units(model: "PreTrainedModel", middle: float, half: float) -> dict[str, Tensor]:
    """A regressor's tensors with middle + half * output as its output: in its last layer, which is linear."""
    name = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    tensors: dict[str, Tensor] = dict(model.state_dict())
    tensors[f"{name}.weight"] = half * tensors[f"{name}.weight"]
    tensors[f"{name}.bias"] = half * tensors[f"{name}.bias"] + middle
    return tensors


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
