"""A teacher of its own at each node: what travels, and everybody else, does not notice."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message
from safetensors.torch import load_file
from support.federation import Config, history, nodes, student
from support.loopback import LoopbackGrid, run_server
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
)

from fedkd_flwr.client import app as client
from fedkd_flwr.client.caches import Caches
from fedkd_flwr.config.node_config import config_at_node
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.data import DataSettings, load_node_data
from fedkd_flwr.errors import ConfigError, ModelError, RunError
from fedkd_flwr.models.build import build_pair
from fedkd_flwr.models.compatibility import check_models
from fedkd_flwr.models.hub import load_tokenizer

NESTED = {"architecture": "nested"}
SEPARATE = {"architecture": "separate"}
MATCHED = SEPARATE | {"hidden": 1.0, "attention": 1.0}


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> str:
    """A random DistilBERT: another family, 3 layers, 12 wide, weights of half precision, the same tokens."""
    folder, tokenizer = tmp_path_factory.mktemp("distilled"), load_tokenizer(str(tiny_bert))
    torch.manual_seed(5)
    size = {"dim": 12, "n_layers": 3, "n_heads": 3, "hidden_dim": 24, "dropout": 0.1, "max_position_embeddings": 64}
    model = DistilBertModel(DistilBertConfig(vocab_size=len(tokenizer), **size))
    model.to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> str:
    """A random BERT, 5 layers, 24 wide, the same tokens."""
    return _wide(tmp_path_factory.mktemp("wide"), tiny_bert, seed=6)


def _wide(folder: Path, tiny_bert: Path, seed: int) -> str:
    tokenizer = load_tokenizer(str(tiny_bert))
    torch.manual_seed(seed)
    size = {"hidden_size": 24, "num_hidden_layers": 5, "num_attention_heads": 4, "intermediate_size": 24}
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **size)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def byte_pairs(tmp_path_factory: pytest.TempPathFactory, tweets_csv: Path) -> str:
    """A random RoBERTa, 3 layers, 20 wide, with byte pairs of its own."""
    folder = tmp_path_factory.mktemp("byte-pairs")
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train([str(tweets_csv)], vocab_size=600, special_tokens=special, show_progress=False)
    trained.save_model(str(folder))
    tokenizer = RobertaTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(7)
    size = {"hidden_size": 20, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
    RobertaModel(RobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=80, **size)).save_pretrained(folder)
    return str(folder)


def places(tmp_path: Path, folder: Path) -> list[Path]:
    lineage = tmp_path / "state" / history(folder)["lineage"]
    return sorted(lineage.glob("partition-*"))


@pytest.mark.parametrize("changes", [NESTED, SEPARATE, MATCHED], ids=["nested", "separate", "matched"])
def test_each_node_trains_its_own_teacher_and_the_student_is_the_runs(
    run_config: Config, tiny_bert: Path, distilled: str, wide: str, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """The first node's teacher is the run's: it stays as the run has it."""
    raw = run_config(teachers=f"{tiny_bert}, {distilled}, {wide}", **changes)
    folder = run_server(LoopbackGrid(raw, nodes(3)))
    found = history(folder)
    assert [entry["trained"] for entry in found["rounds"]] == [3, 3]
    assert all(scores["teacher"] for scores in found["rounds"][-1]["nodes"].values())
    alone = run_server(LoopbackGrid(run_config(run_name="one", **changes), nodes(3)))
    assert student(folder).keys() == student(alone).keys()
    for place, kind, width, layers in zip(
        places(tmp_path, folder), ("bert", "distilbert", "bert"), (16, 12, 24), (4, 3, 5), strict=True
    ):
        own = AutoModelForSequenceClassification.from_pretrained(place / "teacher", trust_remote_code=True)
        assert (own.config.model_type, own.config.hidden_size, own.config.num_hidden_layers) == (kind, width, layers)
        (state,) = place.glob("0*/student.safetensors")
        held = load_file(state)
        assert all(torch.equal(tensor, student(folder)[name]) for name, tensor in held.items())
    (trained,) = places(tmp_path, folder)[1].glob("0*/private.safetensors")
    initial = build_pair(config_at_node(RunConfig.parse(raw), nodes(3)[1]), tuple(found["labels"])).initial_private
    assert load_file(trained).keys() == initial.keys()
    assert not all(torch.equal(tensor, initial[name]) for name, tensor in load_file(trained).items())


def test_a_node_learns_the_same_whoever_shares_its_process(
    run_config: Config, distilled: str, wide: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pair that a process keeps is of the node that it is asked for, and as new as one that was just built."""
    raw = run_config(teachers=f"{distilled},{wide}", **MATCHED)
    together = run_server(LoopbackGrid(raw, nodes(3)))
    grid = LoopbackGrid(raw | {"run.name": "alone"}, nodes(3))

    def afresh(message: Message, deliver: Callable[[], Message]) -> Message:
        monkeypatch.setattr(client, "caches", Caches())
        return deliver()

    grid.fault = afresh
    alone = run_server(grid)
    assert student(together).keys() == student(alone).keys()
    assert all(torch.equal(tensor, student(alone)[name]) for name, tensor in student(together).items())
    assert history(together)["rounds"][-1]["nodes"] == history(alone)["rounds"][-1]["nodes"]


def test_teachers_of_ones_own_can_be_compared_without_a_federation(
    run_config: Config, distilled: str, wide: str, tmp_path: Path
) -> None:
    folder = run_server(LoopbackGrid(run_config(method="local", teachers=f"{distilled},{wide}"), nodes(2)))
    configs = [json.loads((place / "teacher/config.json").read_text()) for place in places(tmp_path, folder)]
    assert [config["model_type"] for config in configs] == ["distilbert", "bert"]
    assert not (folder / "student").exists()


def test_where_no_teacher_is_trained_ones_own_does_not_matter(run_config: Config, distilled: str) -> None:
    config = RunConfig.parse(run_config(method="fedavg"))
    assert config_at_node(config, {"partition-id": 0, "num-partitions": 2, "teacher": distilled}) == config


def test_a_resumed_run_ends_bit_for_bit_as_a_straight_one(
    run_config: Config, tmp_path: Path, distilled: str, wide: str
) -> None:
    raw = run_config(teachers=f"{distilled},{wide}", energy_end=0.95, **NESTED)
    straight = run_server(LoopbackGrid(raw | {"run.name": "straight"}, nodes(2)))
    expected = tensors_of(tmp_path, straight)  # another run's join removes some
    folder = run_server(LoopbackGrid(raw | {"num-rounds": 1}, nodes(2)))
    run_server(LoopbackGrid(raw | {"run.resume": str(folder)}, nodes(2), first_id=900))
    assert all(torch.equal(tensor, student(folder)[name]) for name, tensor in student(straight).items())
    for a, b in zip(expected, tensors_of(tmp_path, folder), strict=True):
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def tensors_of(tmp_path: Path, run: Path) -> list[dict[str, torch.Tensor]]:
    """Of each node of a run: what never travels, the moments, what the codec owes."""
    return [
        load_file(next(place.glob(f"0*/{part}.safetensors")))
        for place in places(tmp_path, run)
        for part in ("private", "moments", "residual")
    ]


@pytest.mark.parametrize("other", ["family", "weights"])
def test_a_changed_teacher_is_refused_by_name_and_the_state_stays(
    run_config: Config, tiny_bert: Path, distilled: str, tmp_path: Path, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one of the same shapes at the same path: the state holds the layers of a teacher, not its embeddings."""
    own = tmp_path / "own"
    _wide(own, tiny_bert, seed=1)
    grid = LoopbackGrid(run_config(num_rounds=1), nodes(2))
    grid.nodes[100]["teacher"] = str(own)
    folder = run_server(grid)
    (state,) = places(tmp_path, folder)[0].glob("0*")
    if other == "weights":
        _wide(own, tiny_bert, seed=2)
        monkeypatch.setattr(client, "caches", Caches())
    again = LoopbackGrid(run_config(resume=str(folder)), nodes(2))
    again.nodes[100]["teacher"] = distilled if other == "family" else str(own)
    with pytest.raises(RunError, match=r"the state of node partition-0 in .*/partition-0 is of another teacher than"):
        run_server(again)
    assert state.is_dir()
    if other == "weights":
        _wide(own, tiny_bert, seed=1)
        monkeypatch.setattr(client, "caches", Caches())
    again.nodes[100]["teacher"] = str(own)
    again.run_config["run.name"] = "run"
    run_server(again)
    assert len(history(folder)["rounds"]) == 2


def test_layers_of_the_runs_teacher_that_travel_leave_no_choice(run_config: Config, wide: str) -> None:
    config = RunConfig.parse(run_config(shared_layers=3, **NESTED))
    with pytest.raises(
        ConfigError, match=rf"own teacher '{wide}' cannot take layers of the run's: .* model.shared-layers"
    ):
        config_at_node(config, {"partition-id": 0, "teacher": wide})
    exact = RunConfig.parse(run_config(shared_layers=2, **NESTED))
    assert config_at_node(exact, {"partition-id": 0, "teacher": wide}).model.architecture == "separate"


def test_a_teacher_that_does_not_fit_is_named_with_its_node(
    run_config: Config, wide: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grid = LoopbackGrid(run_config(min_train_nodes=1), nodes(3))
    grid.nodes[100]["teacher"] = "/none/such"
    grid.nodes[101]["teacher"] = wide
    folder = run_server(grid)
    assert "node partition-0: model '/none/such': there is no folder /none/such" in caplog.text
    assert [entry["trained"] for entry in history(folder)["rounds"]] == [2, 2]


def test_teachers_in_turn_are_looked_at_before_anything_starts(run_config: Config, distilled: str) -> None:
    check_models(RunConfig.parse(run_config(teachers=distilled)))
    with pytest.raises(ModelError, match="there is no folder /none"):
        check_models(RunConfig.parse(run_config(teachers=f"{distilled},/none")))
    with pytest.raises(ConfigError, match=rf"'model.student-layers' is 4 but '{distilled}' has 3 layers"):
        check_models(RunConfig.parse(run_config(teachers=distilled, student_layers=4)))


HIDDEN = SEPARATE | {"hidden": 1.0}


@pytest.mark.parametrize("changes", [NESTED, HIDDEN], ids=["nested", "matched"])
def test_a_teacher_may_read_tokens_of_its_own(
    run_config: Config, byte_pairs: str, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Scores at the node are those of its exported folder, which holds the teacher's tokenizer."""
    grid = LoopbackGrid(run_config(max_test_examples=0, **changes), nodes(2))
    grid.nodes[101]["teacher"] = byte_pairs
    folder = run_server(grid)
    place = places(tmp_path, folder)[1]
    model = AutoModelForSequenceClassification.from_pretrained(place / "teacher", trust_remote_code=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(place / "teacher")
    assert model.config.model_type == "roberta" and tokenizer.get_vocab() == load_tokenizer(byte_pairs).get_vocab()
    config = config_at_node(RunConfig.parse(grid.run_config), grid.nodes[101])
    test = load_node_data(DataSettings.of(config), nodes(2)[1]).test
    right = 0
    for text, label in zip(test["text"][:], test["label"][:], strict=True):
        encoded = tokenizer(text, truncation=True, max_length=config.model.max_length, return_tensors="pt")
        with torch.inference_mode():
            logits = model(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits
        right += int(logits.argmax()) == label
    scores = history(folder)["rounds"][-1]["nodes"]["partition-1"]
    assert scores["teacher"]["accuracy"] == pytest.approx(right / len(test))
    local = LoopbackGrid(
        grid.run_config | {"method": "local", "codec.kind": "dense", "run.name": "local"}, grid.nodes.values()
    )
    assert all(entry["trained"] == 2 for entry in history(run_server(local))["rounds"])


def test_tags_are_learnt_from_a_teacher_that_reads_tokens_of_its_own(
    run_config: Config, byte_pairs: str, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / "ner" / name).mkdir(parents=True)
        for part, count in (("train", 24), ("test", 6)):
            sentences = (f"Aspirin\tB-Drug\nfor\tO\n{part}headache{i}\tB-Pain\n" for i in range(count))
            (tmp_path / "ner" / name / f"{part}.tsv").write_text("\n".join(sentences))
    data = {"task": "token-classification", "dataset": f"iob:{tmp_path / 'ner'}", "partition": "natural"}
    grid = LoopbackGrid(run_config(**data | HIDDEN), nodes(2))
    grid.nodes[101]["teacher"] = byte_pairs
    folder = run_server(grid)
    scores = history(folder)["rounds"][-1]["nodes"]["partition-1"]
    assert {"span-f1", "precision", "recall", "accuracy", "loss"} == scores["teacher"].keys()
    config = json.loads((places(tmp_path, folder)[1] / "teacher/config.json").read_text())
    assert config["architectures"] == ["RobertaForTokenClassification"]


def test_attention_between_different_tokens_cannot_be_matched(run_config: Config, byte_pairs: str) -> None:
    config = RunConfig.parse(run_config(attention=1.0, student_layers=2))
    with pytest.raises(ModelError, match=r"reads other tokens than student .*attention cannot be matched"):
        check_models(config_at_node(config, {"partition-id": 0, "teacher": byte_pairs}))


def test_a_tokenizer_of_another_model_is_refused(run_config: Config, byte_pairs: str, tmp_path: Path) -> None:
    shutil.copytree(byte_pairs, tmp_path / "mixed")
    load_tokenizer("minilm-l6").save_pretrained(tmp_path / "mixed")
    config = RunConfig.parse(run_config())
    with pytest.raises(ModelError, match=r"mixed': its tokenizer has 30522 tokens, the model only 600"):
        check_models(config_at_node(config, {"partition-id": 0, "teacher": str(tmp_path / "mixed")}))
