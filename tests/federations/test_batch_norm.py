"""Models with batch normalisation: its layers and what they have seen stay at each node (FedBN)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message
from PIL import Image
from support.federation import Config, assert_same_models, history, nodes, rows, student, teachers
from support.images import save_digits, save_model, tiny_resnet
from support.loopback import LoopbackGrid, run_server
from torch import nn
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    EfficientNetConfig,
    EfficientNetForImageClassification,
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    PreTrainedModel,
    RegNetConfig,
    RegNetForImageClassification,
    ResNetForImageClassification,
)

from fedkd_flwr.client.client import Client
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.data import DataSettings, load_node_data
from fedkd_flwr.distillation import batch_norms
from fedkd_flwr.messages import EvaluateRequest
from fedkd_flwr.models.build import build_pair
from fedkd_flwr.records import from_records

FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "regnet": lambda: RegNetForImageClassification(
        RegNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], groups_width=4)
    ),
    "efficientnet": lambda: EfficientNetForImageClassification(
        EfficientNetConfig(
            image_size=32, width_coefficient=0.25, depth_coefficient=0.1, hidden_dim=320, num_block_repeats=[1] * 7
        )
    ),
    "mobilenet": lambda: MobileNetV2ForImageClassification(MobileNetV2Config(image_size=32, depth_multiplier=0.25)),
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    save_digits(folder / "train", 200)
    save_digits(folder / "test", 60, start=240)
    return folder


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_resnet(tmp_path_factory.mktemp("resnet"))


@pytest.fixture(scope="module")
def deep_resnet(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_resnet(tmp_path_factory.mktemp("deep-resnet"), (2, 2))


@pytest.fixture
def images(run_config: Config, digits: Path, resnet: str, deep_resnet: str) -> Config:
    """The tiny run on the digits, with a ResNet that teaches another."""

    def build(**changes: Any) -> dict[str, Any]:
        own = {"task": "image-classification", "dataset": f"imagefolder:{digits}", "partition": "iid"}
        models = {"teacher": deep_resnet, "student": resnet, "batch_norm": "local", "head_learning_rate_factor": 1.0}
        return run_config(**own | models | {"codec": "dense"} | changes)

    return build


def norms_of(tensors: dict[str, torch.Tensor], leaf: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name.endswith(leaf) and "normalization" in name}


def test_of_batch_normalisation_nothing_travels_and_all_else_does(images: Config) -> None:
    models = build_pair(RunConfig.parse(images()), ("cat", "dog"))
    assert models.student is not None and models.teacher is not None
    own = {name for name, layer in batch_norms(models.student).items()}
    rest = {n: p for n, p in models.student.named_parameters() if n.rpartition(".")[0] not in own}
    assert models.pair.groups().shared.keys() == rest.keys() and own
    private = models.pair.groups().private
    for model in ("student", "teacher"):
        layers = batch_norms(getattr(models, model))
        leaves = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        assert {f"{model}.{name}.{leaf}" for name in layers for leaf in leaves} <= private.keys()
    assert not [name for name in models.learning_rates if "running" in name or "tracked" in name]
    folder = run_server(LoopbackGrid(images(num_rounds=1), nodes(2)))
    assert {row["tensor"] for row in rows(folder)} - {"(header)"} == rest.keys() == student(folder).keys()
    assert history(folder)["sizes"]["student-bytes"] == 4 * sum(map(torch.numel, student(folder).values()))


def test_each_node_has_and_exports_its_own_and_the_folders_are_stock(images: Config, tmp_path: Path) -> None:
    """A node's folders say, in its scores, what the node was scored with."""
    grid = LoopbackGrid(images(partition="dirichlet", dirichlet_alpha=1.0), nodes(2))
    asked: list[EvaluateRequest] = []

    def listen(message: Message, deliver: Callable[[], Message]) -> Message:
        if message.metadata.message_type == "evaluate":
            asked.append(from_records(EvaluateRequest, message.content))
        return deliver()

    grid.fault = listen
    folder = run_server(grid)
    found = history(folder)
    state = tmp_path / "state" / found["lineage"]
    kept = teachers(folder)
    for part in ("student.", "teacher."):
        for leaf in ("running_mean", "running_var", "weight"):
            one, other = (norms_of(kept[f"partition-{i}"], leaf) for i in range(2))
            own = {name for name in one if name.startswith(part)}
            assert own and any(not torch.equal(one[name], other[name]) for name in own)
    assert norms_of(student(folder), "weight") == {} != student(folder)
    pixels = {"pixel_values": torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))}
    for i, name in enumerate(kept):
        node = Client(RunConfig.parse(grid.run_config), grid.nodes[100 + i])
        node.evaluate(asked[-1].model_copy(update={"refresh": asked[-1].refresh}))
        with node._round(node._place.pair_key(shared_head=True)) as local, torch.inference_mode():
            pair = local.models.pair.eval()
            expected = [output.logits for output in pair(pixels) if output is not None]
            for model, logits in zip(("teacher", "student"), expected, strict=True):
                read, info = AutoModelForImageClassification.from_pretrained(
                    state / name / model, output_loading_info=True
                )
                assert type(read) is ResNetForImageClassification
                assert not info["missing_keys"] and not info["unexpected_keys"]
                torch.testing.assert_close(read(**pixels).logits, logits)
    cards = [(place / "README.md").read_text() for place in (folder / "student", state / "partition-0" / "student")]
    assert ["without statistics" in card for card in cards] == [True, False]
    assert ["## Scores" in card for card in cards] == [False, True]  # a folder says no score but its own
    server = AutoModelForImageClassification.from_pretrained(folder / "student").state_dict()
    initial = AutoModelForImageClassification.from_pretrained(grid.run_config["model.student"]).state_dict()
    for name, tensor in norms_of(server, "running_mean").items():
        assert torch.equal(tensor, initial[name])
    assert all(torch.equal(server[name], tensor) for name, tensor in student(folder).items())


@pytest.mark.parametrize(
    "changes",
    [{"architecture": "separate"}, {"method": "fedavg", "student": ""}, {"method": "local"}],
    ids=["separate", "fedavg", "local"],
)
def test_resumed_runs_end_bit_for_bit_as_straight_ones(images: Config, changes: dict[str, Any]) -> None:
    straight = run_server(LoopbackGrid(images(run_name="straight", **changes), nodes(2)))
    folder = run_server(LoopbackGrid(images(num_rounds=1, **changes), nodes(2)))
    run_server(LoopbackGrid(images(resume=str(folder), run_name="", **changes), nodes(2), first_id=900))
    if changes.get("method") != "local":
        assert_same_models(straight, folder)
    mine, theirs = teachers(straight), teachers(folder)
    assert mine.keys() == theirs.keys() and norms_of(mine["partition-0"], "running_var")
    for node, tensors in mine.items():
        assert all(torch.equal(tensor, theirs[node][name]) for name, tensor in tensors.items())
    assert history(straight)["rounds"][-1]["nodes"] == history(folder)["rounds"][-1]["nodes"]


@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_learn_and_are_read_back(images: Config, family: str, tmp_path: Path) -> None:
    """Their statistics are those of many batches, not of the last one."""
    torch.manual_seed(3)
    model = save_model(FAMILIES[family](), tmp_path / family)
    changes = {"teacher": tiny_resnet(tmp_path / "teacher", side=32), "student": model, "num_rounds": 1}
    folder = run_server(LoopbackGrid(images(**changes), nodes(2)))
    place = next((tmp_path / "state" / history(folder)["lineage"]).glob("partition-0/student"))
    read = AutoModelForImageClassification.from_pretrained(place)
    layers = batch_norms(read)
    assert all(int(layer.num_batches_tracked) == 3 for layer in layers.values())
    initial = batch_norms(AutoModelForImageClassification.from_pretrained(model))
    for name, layer in layers.items():
        assert isinstance(layer, nn.BatchNorm2d)
        share = (layer.running_var / initial[name].running_var).min()
        assert share > 0.9**3 - 1e-3  # of the variance that the checkpoint has, three batches leave so much


def test_models_learn_and_the_servers_student_does_after_it_has_seen_images(
    images: Config, digits: Path, tmp_path: Path
) -> None:
    folder = run_server(LoopbackGrid(images(num_rounds=4, local_steps=12, batch_size=16), nodes(2)))
    found = history(folder)
    for model in ("student", "teachers"):
        assert found["rounds"][-1][model]["loss"] < found["initial"][model]["loss"] - 0.2
    processor = AutoImageProcessor.from_pretrained(folder / "student")
    paths = sorted((digits / "test").glob("*/*.png"))
    pixels = processor([Image.open(path).convert("RGB") for path in paths], return_tensors="pt")["pixel_values"]
    gold = torch.tensor([int(path.parent.name) for path in paths])
    place = next((tmp_path / "state" / found["lineage"]).glob("partition-0/student"))
    server, own = (AutoModelForImageClassification.from_pretrained(each) for each in (folder / "student", place))

    def loss(model: PreTrainedModel) -> float:
        with torch.inference_mode():
            return float(nn.functional.cross_entropy(model.eval()(pixels).logits, gold))

    before = loss(server)
    for layer in batch_norms(server).values():
        layer.reset_running_stats()
        layer.momentum = None
    with torch.no_grad():
        server.train()(pixel_values=pixels)
    assert loss(server) < before - 0.2 and loss(own) < before - 0.2


def test_no_batch_is_of_one_example(images: Config, tmp_path: Path) -> None:
    """Of n images n - 1 make a batch and one is left over, which has no variance where a map is one pixel."""
    small = tiny_resnet(tmp_path / "small", side=8)
    changes = {"teacher": small, "student": small, "local_steps": 0, "num_rounds": 1}
    count = len(load_node_data(DataSettings.of(RunConfig.parse(images(**changes))), nodes(2)[0]).train)
    folder = run_server(LoopbackGrid(images(batch_size=count - 1, **changes), nodes(2)))
    seen = [tensor for name, tensor in teachers(folder)["partition-0"].items() if name.endswith("num_batches_tracked")]
    assert {int(batches) for batches in seen} == {2}
