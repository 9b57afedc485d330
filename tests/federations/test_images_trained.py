"""Federations on images: a ViT with its first layers, a ViT that teaches a ConvNeXt, and what each leaves."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.federation import Config, history, nodes, silo, student
from support.images import save_digits, tiny_convnext, tiny_vit
from support.loopback import LoopbackGrid, run_server
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import ConfigError, RunError
from fedkd_flwr.models.build import build_pair
from fedkd_flwr.models.export import load_classifier

NESTED = {"architecture": "nested"}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 handwritten digits, and 60 others."""
    folder = tmp_path_factory.mktemp("digits")
    save_digits(folder / "train", 240)
    save_digits(folder / "test", 60, start=240)
    return folder


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_vit(tmp_path_factory.mktemp("vit"))


@pytest.fixture(scope="module")
def convnext(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_convnext(tmp_path_factory.mktemp("convnext"))


@pytest.fixture
def images(run_config: Config, digits: Path, vit: str) -> Config:
    """The tiny run on the digits."""

    def build(**changes: Any) -> dict[str, Any]:
        own = {"task": "image-classification", "dataset": f"imagefolder:{digits}", "teacher": vit}
        energy = {} if "codec" in changes else {"energy_end": 0.95}
        return run_config(**own | energy | changes)

    return build


@pytest.mark.parametrize("changes", [NESTED, NESTED | {"shared_layers": 4}, {"architecture": "separate"}])
def test_one_pass_gives_the_outputs_of_both_models(images: Config, changes: dict[str, Any]) -> None:
    """Teacher and student on a batch together are what each is alone; every parameter travels or is private."""
    models = build_pair(RunConfig.parse(images(**changes)), ("cat", "dog", "eel"), True)
    batch = {"pixel_values": torch.randn(3, 3, 16, 16)}
    pair = models.pair.eval()
    assert models.student is not None and models.teacher is not None
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    teacher, learner = pair(batch)
    torch.testing.assert_close(learner.logits, models.student(**batch).logits)
    torch.testing.assert_close(teacher.logits, models.teacher(**batch).logits)
    assert teacher.logits.shape == learner.logits.shape == (3, 3)
    groups = pair.groups()
    shared, private = ({id(p) for p in part.values()} for part in (groups.shared, groups.private))
    assert not shared & private and shared | private == {id(p) for p in pair.parameters()}


def test_a_nested_student_has_the_patches_and_first_layers_of_its_teacher_and_a_norm_of_its_own(images: Config) -> None:
    models = build_pair(RunConfig.parse(images(**NESTED)), ("cat", "dog"), True)
    assert models.student is not None and models.teacher is not None
    learner, teacher = models.student.base_model, models.teacher.base_model
    own = {name for name, p in learner.named_parameters() if p is not teacher.get_parameter(name)}
    assert own == {"layernorm.weight", "layernorm.bias"}
    assert {n.removeprefix("vit.") for n in models.pair.groups().shared} >= own | {"embeddings.cls_token"}


def test_exported_models_are_the_students_and_load_with_the_stock_classes(
    images: Config, digits: Path, tmp_path: Path
) -> None:
    raw = images(**NESTED, server_test_data=f"imagefolder:{digits}", partition="dirichlet", dirichlet_alpha=1.0)
    folder = run_server(LoopbackGrid(raw, nodes(2)))
    found = history(folder)
    assert found["shared-head"] and found["labels"] == [str(digit) for digit in range(10)]
    for entry in found["rounds"]:
        assert {"accuracy", "macro-f1", "loss"} == entry["server"].keys()

    model, info = AutoModelForImageClassification.from_pretrained(folder / "student", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    tensors = model.state_dict()
    assert tensors.keys() == student(folder).keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in student(folder).items())
    assert model.config.num_hidden_layers == 2 and model.config.id2label[3] == "3"
    assert type(load_classifier(folder / "student")).__name__ == "ViTForImageClassification"
    assert AutoImageProcessor.from_pretrained(folder / "student").size == {"height": 16, "width": 16}
    picture = next((digits / "test" / "7").iterdir())
    answers = pipeline("image-classification", model=str(folder / "student"))(str(picture))
    assert {answer["label"] for answer in answers} <= set(found["labels"])
    (teacher,) = sorted((tmp_path / "state" / found["lineage"]).glob("partition-0/teacher"))
    assert AutoModelForImageClassification.from_pretrained(teacher).config.num_hidden_layers == 4


@pytest.mark.parametrize(
    "changes",
    [
        NESTED | {"shared_layers": 4},
        {"architecture": "separate", "hidden": 1.0, "attention": 1.0},
        {"method": "fedavg", "codec": "budget", "budget": "8x"},
        {"method": "local"},
    ],
    ids=["nested, all layers", "separate, matched", "fedavg", "local"],
)
def test_every_method_learns_from_images(images: Config, changes: dict[str, Any]) -> None:
    """Six rounds bring every loss below that of the untrained models."""
    raw = images(partition="iid", num_rounds=6, local_steps=8, batch_size=16, head_learning_rate_factor=1.0, **changes)
    found = history(run_server(LoopbackGrid(raw, nodes(2))))
    last, first = found["rounds"][-1], found["rounds"][0]["nodes"]
    assert {name: scores.keys() for name, scores in last["nodes"].items()} == {n: s.keys() for n, s in first.items()}
    for model in ("student", "teachers"):
        if last[model] is not None:
            assert last[model]["loss"] < found["initial"][model]["loss"] - 0.1


def test_a_convolutional_student_learns_from_a_transformer(images: Config, convnext: str) -> None:
    raw = images(architecture="separate", student=convnext, partition="iid", codec="budget", budget="4x")
    folder = run_server(LoopbackGrid(raw, nodes(2)))
    model = AutoModelForImageClassification.from_pretrained(folder / "student")
    assert type(model).__name__ == "ConvNextForImageClassification" and model.config.depths == [1, 1]
    tensors = model.state_dict()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in student(folder).items())
    with (folder / "traffic.csv").open() as file:
        rows = list(csv.DictReader(file))
    kernels = {row["tensor"] for row in rows if row["kind"] not in ("dense", "zero")}
    assert any("dwconv" in name for name in kernels) or any("pwconv" in name for name in kernels)


def test_resumed_runs_end_bit_for_bit_as_straight_ones(images: Config, tmp_path: Path) -> None:
    straight = run_server(LoopbackGrid(images(run_name="straight", **NESTED), nodes(2)))
    folder = run_server(LoopbackGrid(images(num_rounds=1, **NESTED), nodes(2)))
    run_server(LoopbackGrid(images(resume=str(folder), **NESTED), nodes(2), first_id=900))
    assert all(torch.equal(tensor, student(folder)[name]) for name, tensor in student(straight).items())
    assert history(straight)["rounds"][-1]["nodes"] == history(folder)["rounds"][-1]["nodes"]


def test_nodes_with_folders_and_classes_of_their_own_keep_their_heads(images: Config, vit: str, tmp_path: Path) -> None:
    places = [
        silo(
            name,
            f"imagefolder:{save_digits(tmp_path / name, 120, start, classes)}",
            tmp_path / "state",
            labels=",".join(map(str, range(classes))),
        )
        for name, start, classes in (("north", 0, 10), ("south", 300, 4))
    ]
    folder = run_server(LoopbackGrid(images(dataset="tweets", partition="natural", **NESTED), places))
    found = history(folder)
    assert not found["shared-head"] and not any("classifier" in name for name in student(folder))
    heads = [
        load_file(path)["student.classifier.weight"]
        for name in ("north", "south")
        for path in (tmp_path / "state" / found["lineage"]).glob(f"{name}/0*/private.safetensors")
    ]
    assert [len(head) for head in heads] == [10, 4]


def test_the_second_message_reads_no_image(images: Config, tmp_path: Path) -> None:
    """Pixels are kept: what a node learns from outlives the files themselves until they are looked at again."""
    own = save_digits(tmp_path / "own", 60)
    raw = images(dataset=f"imagefolder:{own}", num_rounds=1, **NESTED)
    run_server(LoopbackGrid(raw, nodes(2)))
    kept = sorted((tmp_path / "state" / "examples").glob("*.arrow"))
    before = [path.stat().st_mtime_ns for path in kept]
    run_server(LoopbackGrid(raw | {"run.name": "again"}, nodes(2)))
    assert [path.stat().st_mtime_ns for path in kept] == before and len(kept) == 2
    next((own / "3").iterdir()).write_bytes(b"no picture")
    with pytest.raises(RunError, match=r"own/3/\d+\.png: no image that can be read \(UnidentifiedImageError\)"):
        run_server(LoopbackGrid(raw | {"run.name": "third"}, nodes(2)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "csv:x.csv"}, "set it to imagefolder:PATH, or the task"),
        ({"partition": "natural"}, "images have no column of owners: set data.partition to 'iid' or 'dirichlet'"),
        ({"student_layers": 5}, "'model.student-layers' is 5 but .* has 4 layers: set it to 1 ... 4"),
        (NESTED | {"shared_layers": 5}, "'model.shared-layers' is 5 but .* has 4 layers: set it to 0 ... 4"),
    ],
)
def test_what_does_not_fit_is_one_line(images: Config, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_server(LoopbackGrid(images(**changes), nodes(2)))
