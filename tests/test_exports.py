import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import FAMILIES, LABELS, TEXTS, batch, build
from transformers import AutoModelForSequenceClassification

from fedkd_flwr.distillation import trainable
from fedkd_flwr.exports import export, load_classifier
from fedkd_flwr.pretrained import load_tokenizer

_READERS = """
import sys, torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, pipeline
assert "fedkd_flwr" not in sys.modules
texts = sys.argv[2:]
results = []
for folder in sys.argv[1].split(","):
    inputs = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
    classify = pipeline("text-classification", model=folder, trust_remote_code=True, top_k=None)
    results.append({
        "encoder": AutoModel.from_pretrained(folder)(**inputs).last_hidden_state.tolist(),
        "classifier": model(**inputs).logits.tolist(),
        "pipeline": [{r["label"]: r["score"] for r in scores} for scores in classify(texts)],
    })
import json; print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def exported(checkpoints: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Models with their folders, and what a process that knows only transformers reads from these."""
    models, folders = {}, {}
    for family, checkpoint in checkpoints.items():
        models[family], folders[family] = build(checkpoint).eval(), str(tmp_path_factory.mktemp(f"exported-{family}"))
        with torch.no_grad():
            for parameter in trainable(models[family]).values():
                parameter.add_(0.1 * torch.randn_like(parameter))
        export(models[family], load_tokenizer(checkpoint), folders[family])
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
    export(model, load_tokenizer(checkpoints["bert"]), tmp_path)
    expected = model(**batch(checkpoints["bert"])).logits
    for again in (load_classifier(tmp_path), AutoModelForSequenceClassification.from_pretrained(tmp_path)):
        assert type(again).__name__ == "BertForSequenceClassification"
        assert torch.equal(again(**batch(str(tmp_path))).logits, expected)


def test_building_says_nothing(checkpoints: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    export(build(checkpoints["bert"]), load_tokenizer(checkpoints["bert"]), Path(checkpoints["bert"]) / "out")
    assert capfd.readouterr() == ("", "")
