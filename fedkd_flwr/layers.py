"""Which layers of a checkpoint an encoder has, in its config and as modules."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

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


def choose_layers(encoder: "PreTrainedModel", layers: Sequence[int]) -> None:
    """Leave an encoder these of its layers, counted from 0.

    Raises:
        ModelError: it has no layers of their own.
    """
    lists = layer_lists(encoder)
    if not lists:
        raise ModelError(
            f"a {encoder.config.model_type} has no list of layers to choose from: empty student-layer-choice"
        )
    for there in lists:
        for number in reversed(range(len(there))):
            if number not in layers:
                del there[number]
        for number, layer in enumerate(there):
            for module in layer.modules():
                if hasattr(module, "layer_idx"):
                    module.layer_idx = number  # type: ignore[assignment]
    keep_layers(encoder.config, layers)


def _parts(config: "PreTrainedConfig") -> "list[PreTrainedConfig]":
    """A config and those inside it."""
    from transformers import PreTrainedConfig

    inside = [value for value in vars(config).values() if isinstance(value, PreTrainedConfig)]
    return [config, *(part for each in inside for part in _parts(each))]
