from pathlib import Path

import pytest
import torch
from checkpoints import batch, build, save
from families import tiny_text_model
from transformers import AutoConfig

from fedkd_flwr.errors import ModelError
from fedkd_flwr.layers import keep_layers


@pytest.mark.parametrize("layers", [(0, 1), (1, 3), (2,), (0, 1, 2, 3)])
def test_what_a_config_says_layer_by_layer_is_cut_with_the_layers(layers: tuple[int, ...]) -> None:
    kinds = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    config = AutoConfig.for_model("gemma3_text", num_hidden_layers=4, layer_types=kinds, eos_token_id=[1, 2, 3, 4])
    config.of_ours, config.of_others, config.inside = (1, 2, 3, 4), [1, 2, 3], AutoConfig.for_model("bert")
    config.inside.windows, config.architectures = [8, 16, 32, 64], ["A", "B", "C", "D"]
    keep_layers(config, layers)
    assert config.num_hidden_layers == len(layers) == len(config.of_ours) == len(config.inside.windows)
    assert config.layer_types == [kinds[layer] for layer in layers]
    assert config.of_ours == tuple(layer + 1 for layer in layers)
    assert config.inside.windows == [8 << layer for layer in layers]
    assert (config.of_others, config.eos_token_id, len(config.architectures)) == ([1, 2, 3], [1, 2, 3, 4], 4)


def test_a_backbones_stages_are_cut_too() -> None:
    config = AutoConfig.for_model("dinov2", num_hidden_layers=4)
    keep_layers(config, range(2))
    assert config.stage_names == ["stem", "stage1", "stage2"]
    assert type(config).from_dict(config.to_dict()).num_hidden_layers == 2


@pytest.mark.parametrize("family", ["modernbert", "qwen3", "gemma3_text", "longformer", "gpt2", "t5 encoder", "xlm"])
def test_the_chosen_layers_of_any_family_are_the_checkpoints(family: str, tmp_path: Path) -> None:
    """Running the whole model and leaving the others out is running the chosen layers."""
    reference = save(tiny_text_model(family), tmp_path)
    model = build(reference, num_layers=2, chosen_layers=(0, 3)).eval()
    first = build(reference, num_layers=1).eval()
    inputs = batch(reference)
    mine, below = (m(**inputs, output_hidden_states=True).hidden_states for m in (model, first))
    assert len(mine) == 3 == model.config.num_hidden_layers + 1
    torch.testing.assert_close(mine[0], below[0])
    whole = tiny_text_model(family)
    own = {n.removeprefix(f"{model.base_model_prefix}."): p for n, p in model.state_dict().items()}
    theirs = whole.state_dict()
    assert all(
        any(torch.equal(tensor, other) for other in theirs.values()) for n, tensor in own.items() if "head." not in n
    )


def test_a_depth_that_cannot_be_set_is_said_in_one_line(tmp_path: Path) -> None:
    reference = save(tiny_text_model("funnel"), tmp_path)
    with pytest.raises(
        ModelError, match="cannot be cut to 2 of its 4 layers: NotImplementedError: This model"
    ) as error:
        build(reference, num_layers=2)
    assert "\n" not in str(error.value)
