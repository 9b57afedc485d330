"""Federations on texts with several labels, or with a number: what is learnt, scored and exported."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from support.federation import Config, history, nodes, silo, student
from support.loopback import LoopbackGrid, run_server
from transformers import AutoModelForSequenceClassification, pipeline

from fedkd_flwr.models.export import load_classifier

NESTED = {"architecture": "nested", "learning_rate": 2e-2, "head_learning_rate_factor": 1.0}


@pytest.fixture(scope="module")
def words(tweets_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real tweets: which of three words each has, how many characters; north has the short ones."""
    folder = tmp_path_factory.mktemp("words")
    with tweets_csv.open() as file:
        texts = sorted((row["text"] for row in csv.DictReader(file)), key=len)
    half = len(texts) // 2
    for name, part in (("all", texts), ("north", texts[:half]), ("south", texts[half:])):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "words", "length"])
            for text in part:
                has = [word for word in ("the", "to", "http") if word in text.lower()]
                writer.writerow([text, ";".join(has), 1000 * len(text)])
    return folder


def run(run_config: Config, words: Path, task: str, **changes: Any) -> Path:
    own = {"task": task, "label_column": {"multi-label": "words", "regression": "length"}[task]}
    raw = run_config(**{"dataset": f"csv:{words / 'all.csv'}", "energy_end": 0.95} | own | NESTED | changes)
    return run_server(LoopbackGrid(raw, nodes(2)))


@pytest.mark.parametrize("pooling", ["mean", "model"])
def test_several_labels(run_config: Config, words: Path, pooling: str) -> None:
    changes = {"architecture": "nested" if pooling == "mean" else "separate", "pooling": pooling}
    test_data = f"csv:{words / 'all.csv'}"
    folder = run(run_config, words, "multi-label", server_test_data=test_data, **changes)
    found = history(folder)
    assert found["labels"] == ["http", "the", "to"] and found["shared-head"]
    for entry in found["rounds"]:
        assert entry["server"].keys() == {"micro-f1", "macro-f1", "mean-average-precision", "loss"}
    model = AutoModelForSequenceClassification.from_pretrained(folder / "student", trust_remote_code=True)
    assert model.config.problem_type == "multi_label_classification"
    tensors = model.state_dict()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in student(folder).items())
    classify = pipeline("text-classification", model=str(folder / "student"), trust_remote_code=True, top_k=None)
    (answers,) = classify(["the way to go"])
    inputs = classify.tokenizer("the way to go", return_tensors="pt")
    logits = model(**inputs, labels=torch.tensor([[0.0, 1.0, 1.0]]))
    assert logits.loss == torch.nn.functional.binary_cross_entropy_with_logits(
        logits.logits, torch.tensor([[0.0, 1.0, 1.0]])
    )
    said = {answer["label"]: answer["score"] for answer in answers}
    for name, score in zip(found["labels"], logits.logits[0].sigmoid().tolist(), strict=True):
        assert said[name] == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "model"])
def test_an_exported_regressor_says_the_number_itself(
    run_config: Config, words: Path, tmp_path: Path, pooling: str
) -> None:
    changes = {"architecture": "nested" if pooling == "mean" else "separate", "pooling": pooling}
    folder = run(run_config, words, "regression", num_rounds=4, local_steps=8, server_test_data="", **changes)
    found = history(folder)
    assert found["shared-head"] and all(float(end) % 1000 == 0 for end in found["labels"])
    scores = found["rounds"][-1]["student"]
    assert scores.keys() == {"mae", "rmse", "r2", "spearman", "loss"}
    low, high = map(float, found["labels"])
    places = [folder / "student", *(tmp_path / "state" / found["lineage"]).glob("partition-0/teacher")]
    assert len(places) == 2
    for place in places:
        model = AutoModelForSequenceClassification.from_pretrained(place, trust_remote_code=True)
        assert (model.config.problem_type, model.config.num_labels) == ("regression", 1)
        assert model.config.id2label == {0: "length"} and type(load_classifier(place)) is not None
        predict = pipeline("text-classification", model=str(place), trust_remote_code=True)
        (answer,) = predict(["short"])
        assert low - (high - low) < answer["score"] < high + (high - low) and abs(answer["score"]) > 100
    mine = student(folder)
    name = next(name for name in mine if name.endswith(("head.weight", "classifier.weight")))
    exported = AutoModelForSequenceClassification.from_pretrained(folder / "student", trust_remote_code=True)
    torch.testing.assert_close(exported.state_dict()[name], mine[name] * (high - low) / 2)
    bias = name.replace("weight", "bias")
    torch.testing.assert_close(exported.state_dict()[bias], mine[bias] * (high - low) / 2 + (high + low) / 2)


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_models_learn(run_config: Config, words: Path, task: str) -> None:
    fast = {"num_rounds": 6, "local_steps": 8, "head_learning_rate_factor": 10.0}
    found = history(run(run_config, words, task, max_test_examples=0, test_fraction=0.2, **fast))
    for model in ("student", "teachers"):
        assert found["rounds"][-1][model]["loss"] < 0.95 * found["initial"][model]["loss"]


def test_where_ranges_differ_each_node_keeps_its_head(
    run_config: Config, words: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw = run_config(task="regression", label_column="length", dataset="tweets", partition="natural", **NESTED)
    places = [
        silo(name, words / f"{name}.csv", tmp_path / "state", labels=labels)
        for name, labels in (("north", "0,150000"), ("south", "0,200000"))
    ]
    own = run_server(LoopbackGrid(raw, places))
    assert not history(own)["shared-head"] and not any("head" in name for name in student(own))
    assert "labels differ, so each node keeps a head of its own" in caplog.text
    places = [{key: value for key, value in place.items() if key != "labels"} for place in places]
    common = run_server(LoopbackGrid(raw | {"data.labels": "0,200000", "run.name": "common"}, places))
    assert history(common)["labels"] == ["0", "200000"] and "head.weight" in student(common)
