"""A head that travels holds for the frequencies of labels at each node."""

import csv
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message
from support.federation import Config, history, nodes, student
from support.loopback import LoopbackGrid, run_server

from fedkd_flwr.errors import RunError
from fedkd_flwr.messages import JoinReply, TrainRequest
from fedkd_flwr.models.export import load_classifier
from fedkd_flwr.records import from_records, to_records
from fedkd_flwr.tasks.label_priors import adjustment, mean_shares


@pytest.fixture(scope="module")
def skewed(tweets_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real tweets of which north has the negative ones, and every fourth of the others."""
    path = tmp_path_factory.mktemp("skewed") / "tweets.csv"
    with tweets_csv.open() as file, path.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["text", "label", "source"])
        for number, row in enumerate(csv.DictReader(file)):
            north = row["label"] == "negative" or number % 4 == 0
            writer.writerow([row["text"], row["label"], "north" if north else "south"])
    return path


def run(run_config: Config, skewed: Path, **changes: Any) -> tuple[Path, LoopbackGrid]:
    own = {"dataset": f"csv:{skewed}", "partition": "natural", "method": "fedkd", "logit_adjustment": "auto"}
    raw = run_config(**own | changes)
    grid = LoopbackGrid(raw, nodes(2))
    return run_server(grid), grid


def sent(grid: LoopbackGrid) -> set[tuple[float, ...]]:
    """The shares of labels that nodes were told."""
    return {from_records(TrainRequest, content).label_shares for _, kind, content in grid.log if kind == "train"}


@pytest.mark.parametrize(
    ("changes", "adjusted"),
    [
        ({}, True),
        ({"architecture": "nested"}, True),
        ({"architecture": "nested", "shared_layers": 4}, True),
        ({"logit_adjustment": "never"}, False),
        ({"method": "fedkd-paper"}, False),
        ({"method": "fedavg"}, True),
        ({"method": "fedavg", "logit_adjustment": "never"}, False),
        ({"method": "local", "logit_adjustment": "always"}, False),
        ({"shared_head": "never"}, False),
    ],
)
def test_whose_heads_are_adjusted(run_config: Config, skewed: Path, changes: dict[str, Any], adjusted: bool) -> None:
    folder, grid = run(run_config, skewed, num_rounds=1, server_test_data="", **changes)
    (told,) = sent(grid)
    assert bool(told) == adjusted and history(folder)["label-shares"] == list(told)


@pytest.mark.parametrize(("shared_layers", "models"), [(0, {"student"}), (4, {"student", "teacher"})])
def test_a_head_that_travels_holds_for_all_nodes_and_each_node_exports_it_for_its_own(
    run_config: Config, skewed: Path, tmp_path: Path, shared_layers: int, models: set[str]
) -> None:
    own = {"partition": "natural", "logit_adjustment": "auto", "architecture": "nested", "server_test_data": ""}
    raw = run_config(dataset=f"csv:{skewed}", shared_layers=shared_layers, **own)
    grid = LoopbackGrid(raw, nodes(2))
    joined: dict[str, JoinReply] = {}

    def listen(message: Message, deliver: Any) -> Message:
        reply: Message = deliver()
        if message.metadata.message_type == "query":
            info = from_records(JoinReply, reply.content)
            joined[info.node] = info
        return reply

    grid.fault = listen
    folder = run_server(grid)
    north, south = (joined[f"partition-{index}"].label_shares for index in range(2))
    assert north[0] > 0.5 > 0.01 > south[0]
    found = history(folder)
    weights = [(info.train_examples, info.label_shares) for info in joined.values()]
    assert found["label-shares"] == pytest.approx(mean_shares(weights))
    assert {path.parent.name for path in folder.glob("*/model.safetensors")} == models
    inputs = {"input_ids": torch.tensor([[2, 220, 3]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    for (name, info), model in product(joined.items(), models):
        here = load_classifier(tmp_path / "state" / found["lineage"] / name / model)
        with torch.inference_mode():
            added = adjustment(info.label_shares, found["label-shares"], "softmax")
            everywhere = load_classifier(folder / model)(**inputs).logits
            torch.testing.assert_close(here(**inputs).logits, everywhere + added)


def test_a_resumed_run_goes_on_with_the_shares_of_its_start(run_config: Config, skewed: Path) -> None:
    whole, _ = run(run_config, skewed, num_rounds=2, run_name="whole", seed=3)
    first, _ = run(run_config, skewed, num_rounds=1, run_name="parts", seed=3)
    second, grid = run(run_config, skewed, num_rounds=2, run_name="", resume=str(first), seed=3)
    assert all(torch.equal(student(whole)[name], tensor) for name, tensor in student(second).items())
    assert [list(told) for told in sent(grid)] == [history(whole)["label-shares"]]


def test_shares_of_other_labels_are_refused_by_name(run_config: Config, skewed: Path) -> None:
    raw = run_config(dataset=f"csv:{skewed}", partition="natural", logit_adjustment="auto")
    grid = LoopbackGrid(raw, nodes(2))

    def fault(message: Message, deliver: Any) -> Message:
        reply: Message = deliver()
        if message.metadata.message_type != "query" or message.metadata.dst_node_id != 101:
            return reply
        info = from_records(JoinReply, reply.content).model_copy(update={"label_shares": (0.5, 0.5)})
        return Message(to_records(info), reply_to=message)

    grid.fault = fault
    with pytest.raises(RunError, match=r"partition-1 .*2 label shares, expected 3"):
        run_server(grid)


def test_skewed_nodes_agree_better_on_a_student(run_config: Config, skewed: Path) -> None:
    """On its own node the student is better calibrated, and nearer to what it is for all."""
    changes = {"architecture": "nested", "num_rounds": 3, "student_kl": 0.0, "seed": 1}
    losses = {
        setting: history(run(run_config, skewed, logit_adjustment=setting, run_name=setting, **changes)[0])["rounds"]
        for setting in ("always", "never")
    }
    assert losses["always"][-1]["student"]["loss"] < losses["never"][-1]["student"]["loss"]
