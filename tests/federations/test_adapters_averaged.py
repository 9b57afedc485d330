"""One whole model of which adapters and head learn and travel, and no more."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from support.federation import Config, assert_same, history, nodes, other_config, student
from support.loopback import LoopbackGrid, run_server
from transformers import AutoModel

from fedkd_flwr import tensors
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import RunError
from fedkd_flwr.models.build import PairModels, build_pair
from fedkd_flwr.models.export import load_classifier

LABELS = ("negative", "neutral", "positive")
START = {"logit_adjustment": "auto", "linear_probe": "auto"}
BATCH = {
    "input_ids": torch.tensor([[2, 759, 208, 3], [2, 759, 3, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
}


def build(raw: dict[str, Any], shared_head: bool = True, seed: int | None = None) -> PairModels:
    return build_pair(RunConfig.parse(raw), LABELS, shared_head, seed)


@pytest.mark.parametrize("method", ["fedavg-lora", "fedavg-student"])
def test_adapters_and_head_are_all_that_learns(run_config: Config, method: str) -> None:
    models = build(run_config(method=method, lora_rank=2, codec="auto"))
    whole = build(run_config(method=method.removesuffix("-lora"), codec="auto"))
    shared = models.pair.groups().shared
    assert not models.pair.groups().private
    assert all(".lora_" in name or name.startswith("head.") for name in shared)
    layers = {name.split(".layer.")[1][0] for name in shared if ".lora_" in name}
    assert layers == ({"0", "1", "2", "3"} if method == "fedavg-lora" else {"0", "1"})
    assert models.teacher_bytes == whole.teacher_bytes, "what it is compared with is the model without adapters"
    assert models.frozen_digest != whole.frozen_digest
    rates = {name: models.learning_rates[f"shared.{name}"] for name in shared}
    of_layers = {rate for name, rate in whole.learning_rates.items() if ".layer." in name}
    assert {5 * rate for rate in of_layers} == {rate for name, rate in rates.items() if ".lora_" in name}
    assert {rate for name, rate in rates.items() if "head." in name} == {10 * rate for rate in of_layers}


def test_adapters_start_alike_at_all_nodes_and_heads_of_their_own_stay(run_config: Config) -> None:
    raw = run_config(method="fedavg-lora", codec="auto")
    one, other = (build(raw, shared_head=False, seed=seed) for seed in (7, 8))
    assert_same(one.initial_shared, other.initial_shared)
    assert all(".lora_" in name for name in one.initial_shared)
    assert {name for name in one.initial_private if "head." in name}
    assert {tensor.shape[0] for name, tensor in one.initial_shared.items() if "lora_A" in name} == {8}


@pytest.mark.parametrize("codec", [{"codec": "auto"}, {"codec": "budget", "budget": "6kB", "error_feedback": "both"}])
def test_what_is_averaged_is_resumed_and_exported_as_one_plain_model(
    run_config: Config, tmp_path: Path, tiny_bert: Path, codec: dict[str, Any]
) -> None:
    changes = {"method": "fedavg-lora", **codec, **START}
    straight = run_server(LoopbackGrid(run_config(run_name="straight", **changes), nodes(2)))
    folder = run_server(LoopbackGrid(run_config(num_rounds=1, **changes), nodes(2)))
    raw = run_config(resume=str(folder), **changes)
    run_server(LoopbackGrid(raw, nodes(2), first_id=900))
    shared = student(folder)
    assert_same(shared, student(straight))
    assert history(folder)["sizes"]["student-bytes"] == tensors.dense_bytes(shared)
    assert any("lora_B" in name and tensor.any() for name, tensor in shared.items())

    exported = load_file(folder / "student" / "model.safetensors")
    first = load_file(tiny_bert / "model.safetensors")
    assert {name.removeprefix("bert.") for name in exported if "head." not in name} == first.keys()
    models = build(raw)
    with torch.no_grad():
        for name, parameter in models.pair.groups().shared.items():
            parameter.copy_(shared[name])
    assert models.student is not None
    with torch.inference_mode():
        expected = models.student.eval()(**BATCH).logits
        torch.testing.assert_close(load_classifier(folder / "student")(**BATCH).logits, expected)
        encoder = AutoModel.from_pretrained(tiny_bert)
        taken = PeftModel.from_pretrained(encoder, folder / "adapter").eval()(**BATCH).last_hidden_state
        torch.testing.assert_close(taken, models.student.base_model(**BATCH).last_hidden_state)
        assert str(tiny_bert) not in (folder / "adapter" / "adapter_config.json").read_text()
        # A node's own has the same layers; its logits are adjusted to the labels there.
        for own in (tmp_path / "state" / history(folder)["lineage"]).glob("*/student"):
            found = load_classifier(own)(**BATCH).logits - expected
            torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-4)
            assert found.abs().max() > 1e-3


def test_a_node_whose_frozen_layers_are_others_is_refused(run_config: Config, tiny_bert: Path, tmp_path: Path) -> None:
    """What travels starts the same there: adapters, and a head by the seed."""
    other = tmp_path / "other"
    shutil.copytree(tiny_bert, other)
    weights = load_file(other / "model.safetensors")
    weights["encoder.layer.1.output.dense.weight"][0, 0] += 0.01
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    raw = run_config(method="fedavg-lora", codec="auto")
    mine, theirs = build(raw), build(raw | {"model.teacher": str(other)})
    assert_same(mine.initial_shared, theirs.initial_shared)
    grid = LoopbackGrid(raw, nodes(2))
    grid.fault = other_config(grid, 101, **{"model.teacher": str(other)})
    with pytest.raises(RunError, match=r"partition-1 has another student checkpoint.*under adapters"):
        run_server(grid)


def test_an_owners_rank_is_that_of_a_teacher_of_their_own(run_config: Config) -> None:
    grid = LoopbackGrid(run_config(method="fedavg-lora", codec="auto", num_rounds=1), nodes(2))
    grid.nodes[101]["lora-rank"] = 4
    assert history(run_server(grid))["rounds"][-1]["trained"] == 2
