"""Nodes with tags of their own: the encoder is shared, heads never leave their node."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message
from safetensors.torch import load_file
from support.federation import Config, history, nodes, other_config, refreshes, silo, student
from support.loopback import LoopbackGrid, run_server
from transformers import AutoModel, AutoModelForTokenClassification, pipeline

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import ConfigError, RunError
from fedkd_flwr.messages import TrainRequest
from fedkd_flwr.models.build import build_pair
from fedkd_flwr.models.export import load_classifier
from fedkd_flwr.records import from_records

TYPES = {"ade": ("ADR", "DRUG"), "bc5": ("Chemical", "Disease"), "ncbi": ("Disease",)}
TAGS = {"ade": "O,B-ADR,I-ADR,B-DRUG,I-DRUG", "ncbi": "O,B-Disease,I-Disease"}
"""As owners name them."""
NESTED = {"architecture": "nested"}


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small corpora, a tag scheme each."""
    folder = tmp_path_factory.mktemp("ner")
    for name, types in TYPES.items():
        (folder / name).mkdir()
        for part, count in (("train", 24), ("test", 6)):
            sentences = []
            for i in range(count):
                kind = types[i % len(types)]
                sentences.append(f"The\tO\n{kind.lower()}\tB-{kind}\nnumber\tI-{kind}\n{part}{i}\tO\n")
            (folder / name / f"{part}.tsv").write_text("\n".join(sentences))
    return folder


@pytest.fixture
def tags(run_config: Config, corpora: Path) -> Config:
    """The tiny run on the corpora."""

    def build(**changes: Any) -> dict[str, Any]:
        own = {"task": "token-classification", "dataset": f"iob:{corpora}", "partition": "natural"}
        return run_config(**own | {"energy_end": 0.95} | changes)

    return build


def sent(folder: Path) -> set[str]:
    with (folder / "traffic.csv").open() as file:
        return {row["tensor"] for row in csv.DictReader(file)}


def states(tmp_path: Path, folder: Path, part: str) -> list[dict[str, torch.Tensor]]:
    lineage = tmp_path / "state" / history(folder)["lineage"]
    return [load_file(path) for path in sorted(lineage.glob(f"partition-*/0*/{part}.safetensors"))]


@pytest.mark.parametrize(
    "changes",
    [
        NESTED,
        NESTED | {"shared_layers": 4},
        {"architecture": "separate"},
        {"architecture": "separate", "hidden": 1.0, "attention": 1.0},
        {"method": "fedavg"},
    ],
    ids=["nested", "nested, all layers", "separate", "separate, matched", "fedavg"],
)
def test_where_tags_differ_the_encoder_travels_and_each_head_stays(
    tags: Config, tmp_path: Path, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    folder = run_server(LoopbackGrid(tags(**changes), nodes(3)))
    assert "labels differ, so each node keeps a head of its own" in caplog.text
    assert not any("classifier" in tensor for tensor in sent(folder))
    assert any("layer.0." in tensor for tensor in sent(folder))
    assert not any("classifier" in name for name in student(folder))

    shared, private = (states(tmp_path, folder, part) for part in ("student", "private"))
    assert all(torch.equal(tensor, student(folder)[name]) for held in shared for name, tensor in held.items())
    heads = [held["student.classifier.weight"] for held in private]
    assert [len(head) for head in heads] == [5, 5, 3]
    assert not torch.equal(heads[0], heads[1])
    initial = build_pair(RunConfig.parse(tags(**changes)), ("O", "B-D", "I-D"), False).initial_private
    assert not torch.equal(heads[2], initial["student.classifier.weight"]), "a private head learns"
    found = history(folder)
    assert (found["labels"], found["shared-head"]) == ([], False)
    for scores in found["rounds"][-1]["nodes"].values():
        assert {"span-f1", "precision", "recall", "accuracy", "loss"} == scores["student"].keys()


def test_every_exported_folder_is_read_by_the_stock_class(tags: Config, tmp_path: Path) -> None:
    folder = run_server(LoopbackGrid(tags(**NESTED), nodes(3)))
    encoder = AutoModel.from_pretrained(folder / "student")
    at_server = student(folder)
    for name, parameter in encoder.named_parameters():
        if f"bert.{name}" in at_server:
            assert torch.equal(parameter, at_server[f"bert.{name}"])
    assert encoder.config.num_hidden_layers == 2
    lineage = tmp_path / "state" / history(folder)["lineage"]
    for number, types in enumerate(TYPES.values()):
        expected = ["O", *(f"{prefix}-{kind}" for kind in types for prefix in "BI")]
        for who, layers in (("student", 2), ("teacher", 4)):
            place = lineage / f"partition-{number}" / who
            model, info = AutoModelForTokenClassification.from_pretrained(place, output_loading_info=True)
            assert not info["missing_keys"] and not info["unexpected_keys"]
            assert list(model.config.id2label.values()) == expected
            assert model.config.num_hidden_layers == layers
            tensors = model.state_dict()
            assert all(torch.equal(tensors[n], t) for n, t in at_server.items() if n in tensors and "layer.3" not in n)
            assert type(load_classifier(place)).__name__ == "BertForTokenClassification"
            assert pipeline("token-classification", model=str(place))("The disease") is not None


def test_where_tags_are_the_same_the_head_travels_too(tags: Config, corpora: Path, tmp_path: Path) -> None:
    same = tmp_path / "same"
    for name in ("a", "b"):
        shutil.copytree(corpora / "ade", same / name)
    raw = tags(dataset=f"iob:{same}", server_test_data=f"iob:{same / 'a'}")
    folder = run_server(LoopbackGrid(raw, nodes(2)))
    assert "classifier.weight" in sent(folder)
    model = AutoModelForTokenClassification.from_pretrained(folder / "student")
    assert torch.equal(model.classifier.weight, student(folder)["classifier.weight"])
    assert model.config.id2label[0] == "O"
    found = history(folder)
    assert found["shared-head"] and all("span-f1" in entry["server"] for entry in found["rounds"])
    never = run_server(
        LoopbackGrid(raw | {"run.name": "n", "model.shared-head": "never", "data.server-test-data": ""}, nodes(2))
    )
    assert "classifier.weight" not in sent(never)


def test_all_tags_in_the_config_make_one_head(tags: Config) -> None:
    kinds = sorted({kind for types in TYPES.values() for kind in types})
    labels = ",".join(["O", *(f"{prefix}-{kind}" for kind in kinds for prefix in "BI")])
    folder = run_server(LoopbackGrid(tags(labels=labels), nodes(3)))
    assert len(student(folder)["classifier.weight"]) == 9


@pytest.mark.parametrize("changes", [NESTED, {"architecture": "separate"}], ids=["nested", "separate"])
def test_resumed_runs_with_private_heads_end_bit_for_bit_as_straight_ones(
    tags: Config, tmp_path: Path, changes: dict[str, Any]
) -> None:
    parts = ("student", "private", "moments", "residual")
    straight = run_server(LoopbackGrid(tags(run_name="straight", **changes), nodes(3)))
    expected = {part: states(tmp_path, straight, part) for part in parts}  # another run's join removes some
    folder = run_server(LoopbackGrid(tags(num_rounds=1, **changes), nodes(3)))
    run_server(LoopbackGrid(tags(resume=str(folder), **changes), nodes(3), first_id=900))
    for part in parts:
        for one, other in zip(expected[part], states(tmp_path, folder, part), strict=True):
            assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert history(straight)["rounds"][-1]["nodes"] == history(folder)["rounds"][-1]["nodes"]


def test_a_student_of_another_seed_gets_a_snapshot_and_keeps_its_head(tags: Config) -> None:
    """Heads are compared where they travel only; encoders always. Here only a head can differ: nothing is sent."""
    grid = LoopbackGrid(tags(), nodes(3))
    grid.fault = other_config(grid, 101, seed=1)
    run_server(grid)
    assert refreshes(grid, 101)[0] == ("nothing", 0, 0)


def test_a_latecomer_with_other_tags_is_refused_by_name(
    tags: Config, corpora: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    places = [silo(n, corpora / "ade", tmp_path / "state", labels=TAGS["ade"]) for n in ("north", "south")]
    grid = LoopbackGrid(tags(num_rounds=3), places)

    def arrives(message: Message, deliver: Callable[[], Message]) -> Message:
        if message.metadata.message_type == "train" and from_records(TrainRequest, message.content).round == 1:
            grid.nodes[500] = silo("late", corpora / "ncbi", tmp_path / "state", labels=TAGS["ncbi"])
        return deliver()

    grid.fault = arrives
    folder = run_server(grid)
    assert "late has the labels O, B-Disease, I-Disease; this run has O, B-ADR" in caplog.text
    assert "model.shared-head to 'never'" in caplog.text
    assert [entry["asked"] for entry in history(folder)["rounds"]] == [2, 2, 2]


def test_nodes_that_come_one_after_the_other_decide_together(tags: Config, corpora: Path, tmp_path: Path) -> None:
    """The first is not admitted before a round has enough: alone, its tags would be the run's."""
    places = [silo(name, corpora / name, tmp_path / "state", labels=names) for name, names in TAGS.items()]
    grid = LoopbackGrid(tags(node_wait_seconds=20), places[:1])

    def next_comes(message: Message, deliver: Callable[[], Message]) -> Message:
        grid.nodes[500] = places[1]
        return deliver()

    grid.fault = next_comes
    found = history(run_server(grid))
    assert found["shared-head"] is False and [entry["trained"] for entry in found["rounds"]] == [2, 2]


def test_one_head_for_all_needs_the_same_tags(tags: Config) -> None:
    with pytest.raises(RunError, match=r"partition-2 has the labels O, B-Disease, I-Disease; this run has O, B-ADR"):
        run_server(LoopbackGrid(tags(shared_head="always", min_train_nodes=3), nodes(3)))


def test_the_server_cannot_score_an_encoder(tags: Config, corpora: Path) -> None:
    with pytest.raises(ConfigError, match=r"'data.server-test-data' needs a head that all nodes share"):
        run_server(LoopbackGrid(tags(server_test_data=f"iob:{corpora / 'ade'}"), nodes(3)))


def test_local_teachers_need_no_common_tags(tags: Config, tmp_path: Path) -> None:
    folder = run_server(LoopbackGrid(tags(method="local"), nodes(3)))
    assert [len(held["teacher.classifier.weight"]) for held in states(tmp_path, folder, "private")] == [5, 5, 3]
    assert not (folder / "student").exists()


@pytest.mark.parametrize("changes", [NESTED, NESTED | {"shared_layers": 4}, {"architecture": "separate"}])
def test_one_pass_gives_the_tags_of_both_models(tags: Config, changes: dict[str, Any]) -> None:
    """Teacher and student on a batch together are what each is alone; every parameter travels or is private."""
    models = build_pair(RunConfig.parse(tags(**changes)), ("O", "B-X", "I-X"), False)
    batch = {
        "input_ids": torch.tensor([[2, 759, 208, 3], [2, 759, 3, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
    }
    pair = models.pair.eval()
    teacher, learner = pair(batch)
    assert models.student is not None and models.teacher is not None
    torch.testing.assert_close(learner.logits, models.student(**batch).logits)
    torch.testing.assert_close(teacher.logits, models.teacher(**batch).logits)
    assert teacher.logits.shape == learner.logits.shape == (2, 4, 3)
    groups = pair.groups()
    shared, private = ({id(p) for p in part.values()} for part in (groups.shared, groups.private))
    assert not shared & private and shared | private == {id(p) for p in pair.parameters() if p.requires_grad}


def test_a_node_tells_whose_line_is_no_tag(tags: Config, corpora: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(corpora, bad)
    with (bad / "bc5" / "train.tsv").open("a") as file:
        file.write("\nno tab here\n")
    with pytest.raises(RunError, match=r"2 nodes can take part.*/bc5/train.tsv: line 121 has no tab"):
        run_server(LoopbackGrid(tags(dataset=f"iob:{bad}", min_train_nodes=3), nodes(3)))
