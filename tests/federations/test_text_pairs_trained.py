"""Federations on pairs of texts: read from every kind of data, learnt, and used from the exported folders."""

import csv
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict
from support.checkpoints import LABELS
from support.federation import Config, history, nodes
from support.loopback import LoopbackGrid, run_server
from transformers import pipeline

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.data import DataSettings, data_fingerprint, load_node_data
from fedkd_flwr.errors import DataError
from fedkd_flwr.models.export import load_classifier
from fedkd_flwr.models.hub import load_tokenizer

NESTED = {"architecture": "nested"}


@pytest.fixture(scope="module")
def rows(tweets_csv: Path) -> list[dict[str, Any]]:
    """Neighbouring real tweets: whether their moods are the same, and by how many characters they differ."""
    with tweets_csv.open() as file:
        tweets = list(csv.DictReader(file))
    return [
        {
            "premise": one["text"],
            "hypothesis": other["text"],
            "label": "same" if one["label"] == other["label"] else "other",
            "moods": ";".join(sorted({one["label"], other["label"]})),
            "longer": len(one["text"]) - len(other["text"]),
        }
        for one, other in pairwise(tweets[:161])
    ]


@pytest.fixture(scope="module")
def pairs_csv(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("pairs") / "pairs.csv", rows)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def paired(run_config: Config, pairs_csv: Path) -> Config:
    def build(**changes: Any) -> dict[str, Any]:
        own = {"dataset": f"csv:{pairs_csv}", "text_column": "premise", "text_pair_column": "hypothesis"}
        return run_config(**own | {"energy_end": 0.95, "num_rounds": 1} | changes)

    return build


@pytest.mark.parametrize("pooling", ["mean", "model"])
def test_exported_models_answer_pairs_as_the_federation_scored_them(
    paired: Config, pairs_csv: Path, rows: list[dict[str, Any]], tmp_path: Path, pooling: str
) -> None:
    changes = NESTED if pooling == "mean" else {"architecture": "separate", "pooling": pooling}
    folder = run_server(LoopbackGrid(paired(server_test_data=f"csv:{pairs_csv}", **changes), nodes(2)))
    found = history(folder)
    model, tokenizer = load_classifier(folder / "student"), load_tokenizer(str(folder / "student"))
    columns = [[row[name] for row in rows] for name in ("premise", "hypothesis")]
    inputs = tokenizer(*columns, truncation=True, max_length=64, padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**inputs).logits
    gold = torch.tensor([found["labels"].index(row["label"]) for row in rows])
    assert float(torch.nn.functional.cross_entropy(logits, gold)) == pytest.approx(
        found["rounds"][-1]["server"]["loss"], abs=1e-5
    )
    (teacher,) = (tmp_path / "state" / found["lineage"]).glob("partition-0/teacher")
    for place in (folder / "student", teacher):
        classify = pipeline("text-classification", model=str(place), trust_remote_code=True, top_k=None)
        one, swapped = (classify({"text": a, "text_pair": b}) for a, b in (("yes sir", "no"), ("no", "yes sir")))
        assert {answer["label"] for answer in one} == {"other", "same"} and one != swapped


@pytest.mark.parametrize(("task", "label"), [("multi-label", "moods"), ("regression", "longer")])
def test_pairs_with_several_labels_or_a_number(
    paired: Config, checkpoints: dict[str, str], task: str, label: str
) -> None:
    """The teacher is of another family, with a tokenizer of its own."""
    changes = {"task": task, "label_column": label, "architecture": "separate", "student_layers": 2, "max_length": 32}
    raw = paired(teacher=checkpoints["distilbert"], student=checkpoints["bert"], **changes)
    found = history(run_server(LoopbackGrid(raw, nodes(2))))
    assert found["rounds"][-1]["student"].keys() == found["rounds"][-1]["teachers"].keys() != set()


def test_a_data_set_of_the_datasets_library_is_read_alike(
    paired: Config, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    parts = {"train": rows[:120], "test": rows[120:]}
    DatasetDict({name: Dataset.from_list(part) for name, part in parts.items()}).save_to_disk(tmp_path / "saved")
    raw = paired(dataset=f"hf:{tmp_path / 'saved'}", **NESTED)
    data = load_node_data(DataSettings.of(RunConfig.parse(raw)), {"partition-id": 0, "num-partitions": 1})
    for part, found in (("train", data.train), ("test", data.test)):
        expected = {(row["premise"], row["hypothesis"]) for row in parts[part]}
        assert set(zip(found["text"][:], found["pair"][:], strict=True)) <= expected
    assert len(data.train) == 120 and len(data.test) == 16


def test_a_pair_repeats_where_both_texts_do(paired: Config, tmp_path: Path) -> None:
    texts = [("a b", "c"), ("A  b", " C"), ("a b", "d"), ("c", "a b"), ("e", "f")]
    rows = [{"premise": one, "hypothesis": two, "label": LABELS[i % 2]} for i, (one, two) in enumerate(texts)]
    config = RunConfig.parse(paired(dataset=f"csv:{write(tmp_path / 'few.csv', rows)}"))
    node = {"partition-id": 0, "num-partitions": 1}
    data = load_node_data(DataSettings.of(config), node)
    found = {(row["text"], row["pair"]) for part in (data.train, data.test) for row in part}
    assert found == {("a b", "c"), ("a b", "d"), ("c", "a b"), ("e", "f")}
    swapped = config.changed(data={"text_column": "hypothesis", "text_pair_column": "premise"})
    assert data_fingerprint(DataSettings.of(config), node) != data_fingerprint(DataSettings.of(swapped), node)


def test_what_is_missing_is_named(paired: Config, tmp_path: Path) -> None:
    rows = [{"premise": "a", "hypothesis": "b", "label": "x"}, {"premise": "c", "hypothesis": " ", "label": "y"}]
    path = write(tmp_path / "few.csv", rows)
    node = {"partition-id": 0, "num-partitions": 1}
    with pytest.raises(DataError, match=r"few.csv: row 2.* has no 'hypothesis'"):
        load_node_data(DataSettings.of(RunConfig.parse(paired(dataset=f"csv:{path}"))), node)
    with pytest.raises(DataError, match=r"one column 'second' but found 0 .*run-config key 'data.text-pair-column' to"):
        load_node_data(DataSettings.of(RunConfig.parse(paired(dataset=f"csv:{path}", text_pair_column="second"))), node)
