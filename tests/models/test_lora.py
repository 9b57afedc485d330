"""Low-rank adapters in place of a teacher's private layers."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.families import tiny_image_model
from support.federation import Config, history, nodes, student
from support.loopback import LoopbackGrid, run_server

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import ConfigError, ModelError, RunError
from fedkd_flwr.models.build import PairModels, build_pair
from fedkd_flwr.models.export import load_classifier
from fedkd_flwr.models.lora import add_adapters, merged, store_frozen_as

LABELS = ("negative", "neutral", "positive")
KINDS = {
    "nested": {"architecture": "nested"},
    "separate": {"architecture": "separate", "hidden": 1.0},
    "local": {"method": "local"},
}
BATCH = {
    "input_ids": torch.tensor([[2, 759, 208, 3], [2, 759, 3, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
}


def build(raw: dict[str, Any]) -> PairModels:
    return build_pair(RunConfig.parse(raw), LABELS)


def teacher_logits(models: PairModels) -> torch.Tensor:
    assert models.teacher is not None
    with torch.inference_mode():
        logits: torch.Tensor = models.teacher.eval()(**BATCH).logits
    return logits


def learn(models: PairModels) -> None:
    """Give every trainable parameter another value."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in models.pair.groups().everything.values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_and_heads_are_all_of_a_teacher_that_learns(run_config: Config, kind: str) -> None:
    whole, models = build(run_config(**KINDS[kind])), build(run_config(lora_rank=2, **KINDS[kind]))
    assert torch.equal(teacher_logits(models), teacher_logits(whole)), "a new adapter adds nothing"
    groups = models.pair.groups()
    shared, private = groups.shared, groups.private
    assert {n: p.shape for n, p in shared.items()} == {n: p.shape for n, p in whole.pair.groups().shared.items()}
    of_teacher = {name for name in private if name.startswith("teacher.")}
    assert of_teacher and all(".lora_" in name or ".head." in name for name in of_teacher)
    layers = {name.split(".layer.")[1][0] for name in of_teacher if ".lora_" in name}
    assert layers == ({"2", "3"} if kind == "nested" else {"0", "1", "2", "3"})
    assert set((shared | private).values()) == {p for p in models.pair.parameters() if p.requires_grad}
    assert models.learning_rates.keys() == {f"shared.{name}" for name in shared} | private.keys()
    assert models.teacher_bytes == whole.teacher_bytes
    assert models.teacher_digest and models.teacher_digest != whole.teacher_digest


@pytest.mark.parametrize("kind", KINDS)
def test_merged_the_teacher_is_plain_and_afterwards_as_it_was(run_config: Config, kind: str) -> None:
    models = build(run_config(lora_rank=2, **KINDS[kind]))
    before = teacher_logits(models)
    learn(models)
    learnt = teacher_logits(models)
    assert models.teacher is not None and not torch.allclose(learnt, before, atol=1e-3)
    state = {name: tensor.clone() for name, tensor in models.teacher.state_dict().items()}
    with merged(models.teacher):
        torch.testing.assert_close(teacher_logits(models), learnt)
        assert not any("lora" in name or "base_layer" in name for name in models.teacher.state_dict())
    after = models.teacher.state_dict()
    assert state.keys() == after.keys() and all(torch.equal(tensor, after[name]) for name, tensor in state.items())
    assert torch.equal(teacher_logits(models), learnt)


@pytest.mark.parametrize("kind", ["nested", "separate"])
def test_frozen_matrices_in_half_precision_give_the_same_outputs_under_autocast(run_config: Config, kind: str) -> None:
    models = build(run_config(lora_rank=2, **KINDS[kind]))
    learn(models)
    assert models.teacher is not None
    with torch.autocast("cpu", torch.bfloat16):
        before = teacher_logits(models)
        size = sum(p.numel() * p.element_size() for p in models.teacher.parameters())
        store_frozen_as(models.teacher, torch.bfloat16)
        assert torch.equal(teacher_logits(models), before)
    assert sum(p.numel() * p.element_size() for p in models.teacher.parameters()) < size
    assert all(p.dtype == torch.float32 for p in models.pair.groups().everything.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_holds_adapters_and_a_folder_a_plain_teacher(
    run_config: Config, tmp_path: Path, tiny_bert: Path, kind: str
) -> None:
    raw = run_config(lora_rank=2, energy_end=0.95, **KINDS[kind])
    folder = run_server(LoopbackGrid(raw | {"num-rounds": 1}, nodes(2)))
    run_server(LoopbackGrid(raw | {"run.resume": str(folder)}, nodes(2), first_id=900))
    place = tmp_path / "state" / history(folder)["lineage"] / "partition-0"
    (path,) = place.glob("0*/private.safetensors")
    private = load_file(path)
    assert all(".lora_" in name or ".head." in name or "projections" in name for name in private)
    assert any(name.endswith("lora_B.default.weight") and tensor.any() for name, tensor in private.items())

    exported = load_file(place / "teacher/model.safetensors")
    first = load_file(tiny_bert / "model.safetensors")
    assert {name.removeprefix("bert.") for name in exported if "head." not in name} == first.keys()
    assert not torch.equal(
        exported["bert.encoder.layer.3.output.dense.weight"], first["encoder.layer.3.output.dense.weight"]
    )
    again = load_classifier(place / "teacher").eval()
    models = build(raw)
    with torch.no_grad():
        for name, parameter in models.pair.groups().private.items():
            parameter.copy_(private[name])
        for name, parameter in models.pair.groups().shared.items():
            parameter.copy_(student(folder)[name])
    with torch.inference_mode():
        torch.testing.assert_close(again(**BATCH).logits, teacher_logits(models))

    straight = run_server(LoopbackGrid(raw | {"run.name": "straight"}, nodes(2)))
    assert history(straight)["rounds"][-1]["nodes"] == history(folder)["rounds"][-1]["nodes"]


def test_a_nodes_owner_chooses_adapters(run_config: Config, tmp_path: Path) -> None:
    grid = LoopbackGrid(run_config(num_rounds=1), nodes(2))
    grid.nodes[101]["lora-rank"] = 4
    lineage = tmp_path / "state" / history(run_server(grid))["lineage"]
    found = [load_file(path) for path in sorted(lineage.glob("partition-*/0*/private.safetensors"))]
    assert [any(".lora_" in name for name in private) for private in found] == [False, True]


def test_adapters_are_for_layers_that_stay(run_config: Config) -> None:
    with pytest.raises(ConfigError, match=r"model.lora-rank is for layers that stay at the node"):
        RunConfig.parse(run_config(architecture="nested", shared_layers=3, lora_rank=2))


def test_a_model_without_linear_layers_has_no_place_for_adapters() -> None:
    model = tiny_image_model("resnet")
    with pytest.raises(ModelError, match=r"a resnet has no linear layers .*model.lora-rank is 2"):
        add_adapters(model, model.parameters(), 2, 0)


def test_what_is_not_installed_is_named_with_the_node(run_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match="and needs the package peft"):
        build(run_config(lora_rank=2))
    with pytest.raises(RunError, match=r"node partition-0: key 'model.lora-rank' is 2 and needs .*fedkd-flwr\[lora\]"):
        run_server(LoopbackGrid(run_config(lora_rank=2), nodes(2)))
