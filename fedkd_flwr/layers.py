"""Which layers of a checkpoint an encoder has, in its config and as modules."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from fedkd_flwr.distillation import layer_lists
from fedkd_flwr.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_NOT_BY_LAYER = ("architectures", "eos_token_id", "bos_token_id")


def keep_layers(config: "PreTrainedConfig", layers: Sequence[int]) -> None:
    """Make a config say that its model has only these layers, counted from 0.

    Whatever a family says layer by layer, in a list as long as the model is deep, is cut with them.

    Raises:
        Exception: of any kind, where the depth of this family cannot be set.
    """
    there = config.num_hidden_layers
    for part in _parts(config):
        for key, value in vars(part).items():
            if isinstance(value, list | tuple) and len(value) == there and key not in _NOT_BY_LAYER:
                setattr(part, key, type(value)(value[layer] for layer in layers))
    config.num_hidden_layers = len(layers)
    if len(getattr(config, "stage_names", ())) == there + 1:  # of layers that a backbone can return, and its embeddings
        config.stage_names = config.stage_names[: len(layers) + 1]
        config.set_output_features_output_indices(None, None)


def choose_layers(model: "PreTrainedModel", layers: Sequence[int]) -> "PreTrainedModel":
    """The model that has only these layers of a model's encoder, counted from 0, which is spoilt.

    Raises:
        ModelError: they make no model of its family.
    """
    kind, lists = model.config.model_type, layer_lists(model.base_model)
    if not lists:
        raise ModelError(f"a {kind} has no list of layers to choose from: empty student-layer-choice")
    for there in lists:
        for number in reversed(range(len(there))):
            if number not in layers:
                del there[number]
    keep_layers(model.config, layers)
    with torch.random.fork_rng(devices=[]):
        chosen = type(model)(model.config)
    try:
        chosen.load_state_dict(model.state_dict())
    except RuntimeError:
        numbers = ", ".join(map(str, layers))
        raise ModelError(
            f"layers {numbers} of a {kind} make no {kind}, whose first layer is unlike the others: put 0 into "
            "student-layer-choice"
        ) from None
    return chosen


def _parts(config: "PreTrainedConfig") -> "list[PreTrainedConfig]":
    """A config and those inside it."""
    from transformers import PreTrainedConfig

    inside = [value for value in vars(config).values() if isinstance(value, PreTrainedConfig)]
    return [config, *(part for each in inside for part in _parts(each))]
