"""Which layers of a checkpoint an encoder has, by its config."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_NOT_BY_LAYER = ("architectures", "eos_token_id", "bos_token_id")


def keep_layers(config: "PreTrainedConfig", count: int) -> None:
    """Make a config say that its model has only its first `count` layers.

    Whatever a family says layer by layer, in a list as long as the model is deep, is cut with them.

    Raises:
        Exception: of any kind, where the depth of this family cannot be set.
    """
    there = config.num_hidden_layers
    for part in _parts(config):
        for key, value in vars(part).items():
            if isinstance(value, list | tuple) and len(value) == there and key not in _NOT_BY_LAYER:
                setattr(part, key, value[:count])
    config.num_hidden_layers = count
    if len(getattr(config, "stage_names", ())) == there + 1:  # of layers that a backbone can return, and its embeddings
        config.stage_names = config.stage_names[: count + 1]
        config.set_output_features_output_indices(None, None)


def _parts(config: "PreTrainedConfig") -> "list[PreTrainedConfig]":
    """A config and those inside it."""
    from transformers import PreTrainedConfig

    inside = [value for value in vars(config).values() if isinstance(value, PreTrainedConfig)]
    return [config, *(part for each in inside for part in _parts(each))]
