"""Trained models as `from_pretrained` folders, written and read."""

import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from torch import Tensor, nn

from fedkd_flwr.errors import ModelError, StateError
from fedkd_flwr.models.hub import quiet, read_config, reading
from fedkd_flwr.models.model_card import About, model_card
from fedkd_flwr.runtime.disk import replacing, write_json

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedModel, PreTrainedTokenizerBase

_NAMES = {"id2label", "label2id", "added_tokens_decoder", "extra_special_tokens", "additional_special_tokens"}
_LOADED = {"is_local", "local_files_only"}
"""What a tokenizer's config keeps of how it was loaded."""


def export(
    model: "PreTrainedModel",
    processor: "PreTrainedTokenizerBase | BaseImageProcessor",
    folder: str | Path,
    about: About,
    added: Tensor | None = None,
    replaced: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a folder for `from_pretrained`, whole or not at all: model, tokenizer or image processor, model card.

    Token and image classifiers are read by their Auto class and their pipeline of `transformers`. A mean-pooled
    classifier keeps its family's config: `AutoModel` reads the encoder from the folder. With `trust_remote_code=True`,
    `AutoModelForSequenceClassification` and its pipeline read the classifier, whose code the folder carries (the
    pipeline logs that it does not know the class, and works); so does `AutoModel` a news recommender. A regressor with
    `units` (middle, half range) predicts numbers from the folder, not scaled ones.

    Args:
        model, processor: what is written.
        folder: where to.
        about: what the folder says of the model; with `added`, its label shares are those that hold then.
        added: to the logits, [classes].
        replaced: what is written instead of parameters of the same names.

    Raises:
        StateError: the disk refuses.
    """
    middle, half = getattr(model, "units", (added, 1.0))
    tensors: dict[str, Tensor] = {**model.state_dict(), **(replaced or {})}
    if middle is not None:
        layer = _last_layer(model)
        tensors[f"{layer}.weight"] = half * tensors[f"{layer}.weight"]
        tensors[f"{layer}.bias"] = half * tensors[f"{layer}.bias"] + middle
    try:
        with replacing(Path(folder)) as fresh, quiet():
            model.save_pretrained(fresh, state_dict=tensors)
            processor.save_pretrained(fresh)
            _complete(fresh, model, processor, about)
    except (OSError, SafetensorError) as error:
        raise StateError(f"cannot write the model {folder}: {error}; free space, or choose another folder") from None


def _complete(
    folder: Path,
    model: "PreTrainedModel",
    processor: "PreTrainedTokenizerBase | BaseImageProcessor",
    about: About,
) -> None:
    """Put what `transformers` leaves out into a saved model's folder, and take out what is of this machine only."""
    code = list(folder.glob("modeling_*.py"))
    for path in code:
        path.write_text(_of_one_family(path.read_text(), model))
    if shares := list(about.label_shares):
        _amend(folder / "config.json", {"head_label_shares": shares} | ({"label_shares": shares} if code else {}))
    rope = getattr(model.config, "rope_parameters", None) or {}
    if "rope_theta" in rope:  # where transformers 4 looks for it
        _amend(folder / "config.json", {"rope_theta": rope["rope_theta"]})
    if (path := folder / "tokenizer_config.json").exists():
        _amend(path, _portable(model, processor, path, about.config.model.max_length))
    for path in folder.glob("*config.json"):
        write_json(path, _without_paths(json.loads(path.read_text())))
    labels = tuple(model.config.id2label[index] for index in range(model.config.num_labels))
    model_card(about, labels, bool(code)).save(folder / "README.md")


def _of_one_family(source: str, model: "PreTrainedModel") -> str:
    """The code of a class of ours as the class of one family.

    Transformers 4 takes no other class for a family's config, and asks it which attention its encoder has.
    """
    encoder, config = type(model.base_model).__name__, type(model.config).__name__
    for pattern, own in (
        (r"from transformers import \(.*?\)", f"from transformers import {config}, {encoder}, PreTrainedModel"),
        (r" +family = .*?\n( +encoder = )family.from_config\(", rf"\1{encoder}("),
        (r"_supports_sdpa = True", f"_supports_sdpa = {encoder}._supports_sdpa"),
        (r"PretrainedConfig", config),
    ):
        source = re.sub(pattern, own, source, flags=re.DOTALL)
    return source


def _portable(
    model: "PreTrainedModel", processor: "PreTrainedTokenizerBase", tokenizer: Path, max_length: int
) -> dict[str, Any]:
    """What the config of a tokenizer must say for every version of `transformers` to read texts as this run did."""
    takes = inspect.signature(model.base_model.forward).parameters
    inputs = [name for name in processor.model_input_names if name in takes]
    family = json.loads(tokenizer.read_text())["tokenizer_class"]
    return {
        "model_max_length": max_length,
        "model_input_names": inputs,
        "tokenizer_class": "PreTrainedTokenizerFast" if family == "TokenizersBackend" else family,
    }


def _amend(path: Path, changes: Mapping[str, Any]) -> None:
    write_json(path, json.loads(path.read_text()) | changes)


def _without_paths(found: Mapping[str, Any]) -> dict[str, Any]:
    """A config without the values that are paths of some machine; names of labels and tokens may look like one."""
    kept = {key: value for key, value in found.items() if key in _NAMES or not _is_path(value)}
    return {
        key: _without_paths(value) if isinstance(value, dict) and key not in _NAMES else value
        for key, value in kept.items()
        if key not in _LOADED
    }


def _is_path(value: object) -> bool:
    return isinstance(value, str) and value.startswith("/") and value.count("/") > 1


def require_bias(model: "PreTrainedModel") -> None:
    """Whether something can be added to a model's logits.

    Raises:
        ModelError: its last layer has no bias.
    """
    name = _last_layer(model)
    if model.get_submodule(name).bias is None:
        raise ModelError(
            f"the head {name!r} of {model.config.model_type} models has no bias, so cannot be adjusted to how frequent "
            "labels are: set train.logit-adjustment to 'never'"
        )


def _last_layer(model: "PreTrainedModel") -> str:
    """The name of the linear layer that a model's outputs come from."""
    names: list[str] = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return names[-1]


def load_classifier(folder: str | Path) -> "PreTrainedModel":
    """An exported classifier, or encoder, in evaluation mode; runs none of the code in the folder.

    Raises:
        ModelError: the folder cannot be read.
    """
    from transformers import (
        AutoModel,
        AutoModelForImageClassification,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
    )

    from fedkd_flwr.models.modeling_mean_pooled import MeanPooledClassifier
    from fedkd_flwr.models.modeling_news import NewsRecommender

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
        elif name.endswith("Model"):
            family = AutoModel
        else:
            family = AutoModelForSequenceClassification
        return family.from_pretrained(folder, config=config, trust_remote_code=False)
