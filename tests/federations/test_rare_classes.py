"""Federations whose rare classes weigh more: how much at which node, and what comes of it."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.federation import Config, history, nodes, student
from support.images import save_digits, tiny_vit
from support.loopback import LoopbackGrid, run_server

import fedkd_flwr.client.round
from fedkd_flwr.models.export import load_classifier
from fedkd_flwr.models.hub import load_tokenizer
from fedkd_flwr.tasks.class_weights import class_weights
from fedkd_flwr.tasks.label_priors import mean_shares, shares


@pytest.fixture(scope="module")
def rare(tweets_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real tweets, every eighth of the negative ones, most of these in the north."""
    path = tmp_path_factory.mktemp("rare") / "tweets.csv"
    with tweets_csv.open() as file, path.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["text", "label", "source"])
        negative = other = 0
        for row in csv.DictReader(file):
            if row["label"] == "negative":
                negative += 1
                if negative % 8 == 0:
                    writer.writerow([row["text"], "negative", "south" if negative % 32 == 0 else "north"])
            else:
                other += 1
                writer.writerow([row["text"], "other", "north" if other % 2 else "south"])
    return path


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """Those of every loss that nodes build."""
    found: list[list[float]] = []
    build = fedkd_flwr.client.round.WeightedLosses

    def listen(task: Any, weights: torch.Tensor) -> Any:
        found.append(weights.tolist())
        return build(task, weights)

    monkeypatch.setattr(fedkd_flwr.client.round, "WeightedLosses", listen)
    return found


def run(run_config: Config, rare: Path, **changes: Any) -> Path:
    own = {"dataset": f"csv:{rare}", "partition": "natural", "architecture": "nested", "num_rounds": 1}
    return run_server(LoopbackGrid(run_config(**own | {"server_test_data": ""} | changes), nodes(2)))


def counts(rare: Path) -> list[list[int]]:
    """Of the examples that north and south train on, by class."""
    with rare.open() as file:
        rows = [(row["source"], row["label"]) for row in csv.DictReader(file)]
    return [[rows.count((source, label)) for label in ("negative", "other")] for source in ("north", "south")]


@pytest.mark.parametrize("adjustment", ["never", "always"])
def test_nodes_that_share_a_head_balance_by_the_shares_of_all_of_them(
    run_config: Config, rare: Path, weights: list[list[float]], adjustment: str
) -> None:
    changes = {"test_fraction": 0.01, "max_test_examples": 2, "logit_adjustment": adjustment}
    found = history(run(run_config, rare, class_weights="balanced", **changes))
    expected = class_weights("balanced", found["label-shares"], "softmax")
    assert expected is not None
    told = [each for each in weights if each == pytest.approx(expected.tolist())]
    assert len(told) == 4  # two nodes train, two evaluate
    everywhere = mean_shares([(sum(each), shares(each, sum(each))) for each in counts(rare)])
    assert found["label-shares"] == pytest.approx(everywhere, rel=0.2)
    assert expected[0] > 4 * expected[1]


@pytest.mark.parametrize("changes", [{"method": "local"}, {"shared_head": "never"}])
def test_nodes_that_share_no_head_balance_by_their_own_shares(
    run_config: Config, rare: Path, weights: list[list[float]], changes: dict[str, Any]
) -> None:
    found = history(run(run_config, rare, class_weights="balanced", **changes))
    assert found["label-shares"] == [] and len({tuple(each) for each in weights}) == 2


def of_tags(folder: Path) -> dict[str, Any]:
    """Two nodes whose sentences of four words have a chemical of one word, every third one also a disease of two."""
    folder = folder / "tags"
    for node in ("north", "south"):
        (folder / node).mkdir(parents=True)
        lines = ["The\tO", "aspirin\tB-Chemical", "helped\tO"]
        disease = ["heart\tB-Disease", "failure\tI-Disease"]
        sentences = [[*lines, f"{node}{i}\tO", *(disease if i % 3 == 0 else [])] for i in range(12)]
        (folder / node / "train.tsv").write_text("\n\n".join(map("\n".join, sentences)))
    return {"task": "token-classification", "dataset": f"iob:{folder}"}


def of_images(folder: Path) -> dict[str, Any]:
    digits = save_digits(folder / "digits", 60, classes=3)
    vit = tiny_vit(folder / "vit")
    return {"task": "image-classification", "dataset": f"imagefolder:{digits}", "partition": "iid", "teacher": vit}


def of_several_labels(folder: Path) -> dict[str, Any]:
    rows = [f"tweet number {i},{'a;b' if i % 10 == 0 else 'b' if i % 2 else ''}" for i in range(40)]
    (folder / "rows.csv").write_text("\n".join(["text,label", *rows]))
    return {"task": "multi-label", "dataset": f"csv:{folder / 'rows.csv'}", "partition": "iid"}


@pytest.mark.parametrize("data", [of_tags, of_images, of_several_labels])
def test_every_task_with_classes_has_weights_also_of_stored_examples(
    run_config: Config, rare: Path, tmp_path: Path, weights: list[list[float]], data: Callable[[Path], dict[str, Any]]
) -> None:
    own = data(tmp_path) | {"class_weights": "balanced", "linear_probe": "always"}
    found = history(run(run_config, rare, run_name="one", **own))
    first = [*weights]
    run(run_config, rare, run_name="two", **own)
    link: Any = "sigmoid" if own["task"] == "multi-label" else "softmax"
    expected = class_weights("balanced", found["label-shares"], link)
    assert expected is not None and len(expected) == len(found["labels"])
    assert expected.tolist() in first and weights == 2 * first
    if own["task"] == "token-classification":
        o, chemical = found["labels"].index("O"), found["labels"].index("B-Chemical")
        assert expected[chemical] / expected[o] == pytest.approx(3, rel=0.1)  # three words outside, one chemical


def test_weights_of_one_are_no_weights(run_config: Config, rare: Path) -> None:
    names = {"labels": "negative,other", "linear_probe": "always", "logit_adjustment": "always"}
    plain = run(run_config, rare, run_name="plain", **names)
    ones = run(run_config, rare, run_name="ones", class_weights="1,1", **names)
    heavy = run(run_config, rare, run_name="heavy", class_weights="5,1", **names)
    assert all(torch.equal(student(plain)[name], tensor) for name, tensor in student(ones).items())
    assert not all(torch.equal(student(plain)[name], tensor) for name, tensor in student(heavy).items())


def test_a_rare_class_is_found_more_often(run_config: Config, rare: Path, tweets_csv: Path) -> None:
    """The negative tweets, seven eighths of which nobody has learnt from; losses stay comparable."""
    with tweets_csv.open() as file:
        texts = [row["text"] for row in csv.DictReader(file) if row["label"] == "negative"]
    changes = {"num_rounds": 2, "local_steps": 6, "batch_size": 32, "head_learning_rate_factor": 1.0}
    probability, loss = {}, set()
    for name, setting in (("none", "none"), ("balanced", "balanced"), ("heavy", "60,1")):
        own = {"class_weights": setting, "run_name": name, "logit_adjustment": "always", "labels": "negative,other"}
        folder = run(run_config, rare, linear_probe="always", **changes, **own)
        model, tokenizer = load_classifier(folder / "student"), load_tokenizer(str(folder / "student"))
        inputs = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
        with torch.inference_mode():
            logits = model(inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        probability[name] = logits.softmax(-1)[:, 0]
        loss.add(history(folder)["initial"]["student"]["loss"])
    recall = {name: float((found > 0.5).float().mean()) for name, found in probability.items()}
    assert probability["balanced"].mean() > probability["none"].mean() + 0.2
    assert recall["none"] < 0.1 and recall["heavy"] > 0.6
    assert len(loss) == 1  # of untrained models: the held-out loss has no weights
