from pathlib import Path

import pytest
from support.checkpoints import build, save
from support.families import tiny_text_model
from transformers import AutoConfig

from fedkd_flwr.errors import ModelError
from fedkd_flwr.models.layers import keep_layers


@pytest.mark.parametrize("count", [1, 2, 4])
def test_what_a_config_says_layer_by_layer_is_cut_with_the_layers(count: int) -> None:
    kinds = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    config = AutoConfig.for_model("gemma3_text", num_hidden_layers=4, layer_types=kinds, eos_token_id=[1, 2, 3, 4])
    config.of_ours, config.of_others, config.inside = (1, 2, 3, 4), [1, 2, 3], AutoConfig.for_model("bert")
    config.inside.windows, config.architectures = [8, 16, 32, 64], ["A", "B", "C", "D"]
    keep_layers(config, count)
    assert config.num_hidden_layers == count == len(config.of_ours) == len(config.inside.windows)
    assert config.layer_types == kinds[:count]
    assert config.of_ours == (1, 2, 3, 4)[:count]
    assert config.inside.windows == [8, 16, 32, 64][:count]
    assert (config.of_others, config.eos_token_id, len(config.architectures)) == ([1, 2, 3], [1, 2, 3, 4], 4)


def test_a_backbones_stages_are_cut_too() -> None:
    config = AutoConfig.for_model("dinov2", num_hidden_layers=4)
    keep_layers(config, 2)
    assert config.stage_names == ["stem", "stage1", "stage2"]
    assert type(config).from_dict(config.to_dict()).num_hidden_layers == 2


def test_a_depth_that_cannot_be_set_is_said_in_one_line(tmp_path: Path) -> None:
    reference = save(tiny_text_model("funnel"), tmp_path)
    with pytest.raises(
        ModelError, match="cannot be cut to 2 of its 4 layers: NotImplementedError: This model"
    ) as error:
        build(reference, num_layers=2)
    assert "\n" not in str(error.value)
