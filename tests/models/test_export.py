import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from support.checkpoints import FAMILIES, LABELS, TEXTS, about, batch, build
from support.federation import short_files
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from fedkd_flwr.distillation import trainable
from fedkd_flwr.errors import StateError
from fedkd_flwr.models.export import export, load_classifier
from fedkd_flwr.models.hub import load_tokenizer
from fedkd_flwr.models.modeling_mean_pooled import MeanPooledClassifier
from fedkd_flwr.tasks.label_priors import Link, adjustment

_READERS = """
import sys, torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, pipeline
assert "fedkd_flwr" not in sys.modules
texts = sys.argv[2:]
results = []
for folder in sys.argv[1].split(","):
    inputs = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    model, same, other = (
        AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True, **shares)
        for shares in ({}, {"label_shares": [0.2, 0.3, 0.5]}, {"label_shares": [0.5, 0.25, 0.25]})
    )
    classify = pipeline("text-classification", model=folder, trust_remote_code=True, top_k=None)
    results.append({
        "encoder": AutoModel.from_pretrained(folder)(**inputs).last_hidden_state.tolist(),
        "classifier": model(**inputs).logits.tolist(),
        "same label shares": same(**inputs).logits.tolist(),
        "other label shares": other(**inputs).logits.tolist(),
        "pipeline": [{r["label"]: r["score"] for r in scores} for scores in classify(texts)],
    })
import json; print(json.dumps(results))
"""

SHARES, OTHER_SHARES = (0.2, 0.3, 0.5), (0.5, 0.25, 0.25)


@pytest.fixture(scope="module")
def exported(checkpoints: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Models with their folders, and what a process that knows only transformers reads from these."""
    models, folders = {}, {}
    for family, checkpoint in checkpoints.items():
        models[family], folders[family] = build(checkpoint).eval(), str(tmp_path_factory.mktemp(f"exported-{family}"))
        with torch.no_grad():
            for parameter in trainable(models[family]).values():
                parameter.add_(0.1 * torch.randn_like(parameter))
        export(models[family], load_tokenizer(checkpoint), folders[family], about(label_shares=SHARES))
    cache = tmp_path_factory.mktemp("cache")
    environment = {**os.environ, "HF_MODULES_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _READERS, ",".join(folders.values()), *TEXTS]
    done = subprocess.run(command, cwd=cache, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    read = dict(zip(folders, json.loads(done.stdout.splitlines()[-1]), strict=True))
    return {family: (models[family], folders[family], read[family]) for family in folders}


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_folder_gives_the_same_numbers_everywhere(
    family: str, exported: dict[str, Any], checkpoints: dict[str, str]
) -> None:
    model, folder, read = exported[family]
    output = model(**batch(checkpoints[family]), output_hidden_states=True)
    assert torch.equal(torch.tensor(read["encoder"]), output.hidden_states[-1])
    assert torch.equal(torch.tensor(read["classifier"]), output.logits)
    assert torch.equal(torch.tensor(read["same label shares"]), output.logits)
    adjusted = output.logits + adjustment(OTHER_SHARES, SHARES, "softmax")
    torch.testing.assert_close(torch.tensor(read["other label shares"]), adjusted)
    for scores, logits in zip(read["pipeline"], output.logits, strict=True):
        torch.testing.assert_close(torch.tensor([scores[label] for label in LABELS]), logits.softmax(-1))
    again = load_classifier(folder)
    assert not again.training
    assert torch.equal(again(**batch(folder)).logits, output.logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_config_is_the_familys(family: str, exported: dict[str, Any]) -> None:
    config = json.loads((Path(exported[family][1]) / "config.json").read_text())
    assert config["model_type"] == family
    assert config.get("num_hidden_layers", config.get("n_layers")) == 2
    assert config["id2label"] == {str(index): name for index, name in enumerate(LABELS)}
    assert config["label2id"] == {name: index for index, name in enumerate(LABELS)}


def test_the_familys_own_classifier_cannot_take_the_head_for_its_own(exported: dict[str, Any]) -> None:
    _, info = AutoModelForSequenceClassification.from_pretrained(
        exported["bert"][1], trust_remote_code=False, output_loading_info=True
    )
    assert info["missing_keys"] == {"classifier.weight", "classifier.bias"}


def test_the_familys_classifier_needs_no_code_of_ours(checkpoints: dict[str, str], tmp_path: Path) -> None:
    model = build(checkpoints["bert"], pooling="model").eval()
    export(model, load_tokenizer(checkpoints["bert"]), tmp_path, about())
    expected = model(**batch(checkpoints["bert"])).logits
    for again in (load_classifier(tmp_path), AutoModelForSequenceClassification.from_pretrained(tmp_path)):
        assert type(again).__name__ == "BertForSequenceClassification"
        assert torch.equal(again(**batch(str(tmp_path))).logits, expected)


def test_building_says_nothing(checkpoints: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export(build(checkpoints["bert"]), load_tokenizer(checkpoints["bert"]), tmp_path / "out", about())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("problem_type", "link"), [(None, "softmax"), ("multi_label_classification", "sigmoid")])
def test_label_shares_at_loading_give_what_a_head_for_these_gives(
    checkpoints: dict[str, str], tmp_path: Path, problem_type: str | None, link: Link
) -> None:
    """To the last bit: a node's own export is the same model."""
    model, tokenizer = build(checkpoints["bert"], problem_type=problem_type).eval(), load_tokenizer(checkpoints["bert"])
    export(model, tokenizer, tmp_path / "all", about(label_shares=SHARES))
    added = adjustment(OTHER_SHARES, SHARES, link)
    export(model, tokenizer, tmp_path / "node", about(label_shares=OTHER_SHARES), added)
    here, inputs = load_classifier(tmp_path / "node"), batch(checkpoints["bert"])
    read = {
        shares: MeanPooledClassifier.from_pretrained(
            tmp_path / "all", config=AutoConfig.from_pretrained(tmp_path / "all", label_shares=shares)
        )
        for shares in (SHARES, OTHER_SHARES)
    }
    assert torch.equal(read[OTHER_SHARES](**inputs).logits, here(**inputs).logits)
    assert torch.equal(read[SHARES](**inputs).logits, model(**inputs).logits)
    assert not torch.allclose(here(**inputs).logits, model(**inputs).logits)
    for wrong in ([0.5, 0.5], [0.0, 0.5, 0.5], [20, 30, 50]):
        with pytest.raises(ValueError, match="label_shares must be 3 numbers between 0 and 1"):
            MeanPooledClassifier(AutoConfig.from_pretrained(tmp_path / "all", label_shares=wrong))


def test_a_head_of_the_family_says_what_it_holds_for_and_takes_nothing_else(
    checkpoints: dict[str, str], tmp_path: Path
) -> None:
    model = build(checkpoints["bert"], pooling="model")
    export(model, load_tokenizer(checkpoints["bert"]), tmp_path, about(label_shares=SHARES))
    assert AutoConfig.from_pretrained(tmp_path).head_label_shares == list(SHARES)
    with pytest.raises(TypeError, match="label_shares"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path, label_shares=list(OTHER_SHARES))


@pytest.mark.parametrize(("pooling", "file"), [("mean", "modeling_mean_pooled.py"), ("news", "modeling_news.py")])
@pytest.mark.parametrize("family", FAMILIES)
def test_code_that_travels_needs_nothing_that_transformers_4_49_lacks(
    checkpoints: dict[str, str], tmp_path: Path, family: str, pooling: str, file: str
) -> None:
    """`PreTrainedConfig` came with 5; 4 registers a class by the config of its family, so the code names that one.

    docs/use-the-models.md says with which versions such folders were read.
    """
    model = build(checkpoints[family], pooling=pooling)
    export(model, load_tokenizer(checkpoints[family]), tmp_path, about())
    tree = ast.parse((tmp_path / file).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    taken = {alias.name for node in imports if str(node.module).startswith("transformers") for alias in node.names}
    config, encoder = type(model.config).__name__, type(model.base_model).__name__
    assert taken == {config, encoder, "PreTrainedModel", "SequenceClassifierOutput"}
    assert {str(node.module).partition(".")[0] for node in imports} == {"typing", "torch", "transformers"}
    inherited = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    } & set(dir(PreTrainedModel))
    assert inherited <= {"base_model", "base_model_prefix", "loss_function", "post_init", "config"}
    (name,) = [node for node in ast.walk(tree) if isinstance(node, ast.Assign) and "config_class" in ast.dump(node)]
    assert ast.unparse(name) == f"config_class = {config}"


def test_a_tokenizer_is_shipped_as_the_run_used_it(checkpoints: dict[str, str], tmp_path: Path) -> None:
    tokenizer = load_tokenizer(checkpoints["distilbert"])
    export(build(checkpoints["distilbert"]), tokenizer, tmp_path, about({"model.max-length": 7}))
    found = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert found["model_max_length"] == 7 and found["model_input_names"] == ["input_ids", "attention_mask"]
    assert found["tokenizer_class"] == "BertTokenizer"
    again = load_tokenizer(str(tmp_path))
    assert again.model_max_length == 7 and len(again(TEXTS[0], truncation=True)["input_ids"]) == 7
    assert tokenizer.model_max_length > 7


def test_no_exported_file_names_a_path(checkpoints: dict[str, str], tmp_path: Path) -> None:
    """Neither those of this run nor those that a checkpoint brings along; labels that look like one stay."""
    base = tmp_path / "secret" / "base"
    shutil.copytree(checkpoints["bert"], base)
    for name in ("config.json", "tokenizer_config.json"):
        kept = json.loads((base / name).read_text())
        paths = dict.fromkeys(("_name_or_path", "name_or_path", "cache_dir", "vocab_file", "other"), "/secret/place")
        (base / name).write_text(json.dumps(kept | paths | {"task_specific_params": {"mine": "/secret/place"}}))
    labels = ("/m/01", "spam", "eggs")
    ours = {
        "model.teacher": str(base),
        "data.dataset": "csv:/secret/tweets.csv",
        "run.runs-dir": "/secret/runs",
        "run.state-dir": "/secret",
    }
    told = about(ours, titles=("/secret/north.csv", "south"))
    export(build(str(base), labels=labels), load_tokenizer(str(base)), tmp_path / "out", told)
    texts = {path.name: path.read_text() for path in (tmp_path / "out").iterdir() if path.suffix != ".safetensors"}
    assert [name for name, text in texts.items() if "/secret" in text or str(tmp_path) in text] == []
    assert (
        "| `data.dataset` | `csv:tweets.csv` |" in texts["README.md"] and "Data: north.csv, south" in texts["README.md"]
    )
    assert load_classifier(tmp_path / "out").config.id2label[0] == "/m/01"


def test_an_export_is_there_whole_or_as_before(checkpoints: dict[str, str], tmp_path: Path) -> None:
    tokenizer = load_tokenizer(checkpoints["bert"])
    export(build(checkpoints["bert"]), tokenizer, tmp_path / "out", about())
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with short_files(1 << 12), pytest.raises(StateError, match=r"cannot write the model .*File too large"):
        export(build(checkpoints["bert"], num_layers=3), tokenizer, tmp_path / "out", about())
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    export(build(checkpoints["bert"], num_layers=3), tokenizer, tmp_path / "out", about())
    assert load_classifier(tmp_path / "out").config.num_hidden_layers == 3


def test_the_licence_of_the_base_is_that_of_its_card(checkpoints: dict[str, str], tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(checkpoints["bert"], base)
    for front, expected in (("", None), ("---\nlicense: apache-2.0\n---\n# A model\n", "apache-2.0")):
        if front:
            (base / "README.md").write_text(front)
        export(build(str(base)), load_tokenizer(str(base)), tmp_path / "out", about({"model.teacher": str(base)}))
        assert ModelCard.load(tmp_path / "out/README.md").data.license == expected
