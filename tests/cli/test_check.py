import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from transformers import FNetConfig, FNetModel

from fedkd_flwr.cli.check import CheckedNode, as_table, check, write_held_out
from fedkd_flwr.cli.preflight import NodeConfig, simulated_nodes
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.data import DataReport, DataSettings, load_node_data
from fedkd_flwr.errors import ConfigError
from fedkd_flwr.models.hub import load_tokenizer

Config = Callable[..., dict[str, Any]]


def silent(_: str) -> None:
    pass


@pytest.fixture
def silos(tmp_path: Path) -> list[NodeConfig]:
    """Two nodes with 12 and 8 short texts, and one long."""
    nodes: list[NodeConfig] = []
    for name, count in (("north", 12), ("south", 8)):
        texts = [f"{name} {number}" for number in range(count)] + ["flight " * 100]
        lines = [f"{text},{('good', 'bad')[number % 2]}" for number, text in enumerate(texts)]
        (tmp_path / f"{name}.csv").write_text("\n".join(("text,label", *lines, "")))
        nodes.append({"name": name, "data-path": str(tmp_path / f"{name}.csv")})
    return nodes


def test_what_each_node_has(run_config: Config, silos: list[NodeConfig]) -> None:
    """As the node itself will find it: the same examples held out."""
    config = RunConfig.parse(run_config(labels="bad,good"))
    found = check(config, silos, silent)
    assert found.mistakes == ()
    assert [node.title for node in found.nodes] == ["north", "south"]
    for node, silo in zip(found.nodes, silos, strict=True):
        data = load_node_data(DataSettings.of(config), silo)
        assert node.labels == data.labels == ("bad", "good")
        assert (node.train, node.test) == (len(data.train), len(data.test))
        assert node.report.held_out == data.report.held_out
        assert (node.report.cut, node.report.longest) == (1, 102)
    console = Console(width=200, record=True)
    console.print(as_table(found.nodes))
    printed = console.export_text()
    assert "north" in printed and "102" in printed


def test_simulated_nodes_are_checked_as_they_share_the_data(run_config: Config) -> None:
    found = check(RunConfig.parse(run_config()), simulated_nodes(3), silent)
    assert [node.title for node in found.nodes] == [f"partition-{number}" for number in range(3)]
    assert not found.mistakes


def test_all_mistakes_are_found_at_once_each_said_once(
    run_config: Config, silos: list[NodeConfig], tmp_path: Path
) -> None:
    """Nodes are called by their names, and good ones shown whatever others have."""
    (tmp_path / "one.csv").write_text("text,label\nx,good\n")
    nodes: list[NodeConfig] = [
        *silos,
        {"name": "north", "data-path": silos[0]["data-path"]},
        {"name": "gone", "data-path": str(tmp_path / "gone.csv")},
        {"name": "few", "data-path": str(tmp_path / "one.csv")},
        {"name": "gpu", "data-path": silos[1]["data-path"], "precision": "fp16", "device": "cpu"},
        {"name": "odd", "data-path": silos[1]["data-path"], "sead": 1},
        {"name": "own", "data-path": silos[1]["data-path"], "teacher": "/none"},
    ]
    found = check(RunConfig.parse(run_config(teacher=str(tmp_path / "no-model"))), nodes, silent)
    words = [
        "2 nodes are called 'north'", "node gone: ", "node few: ", "node gpu: ", "node odd: ", "node own: ",
        "no-model",
    ]  # fmt: skip
    for word in words:
        assert any(word in mistake for mistake in found.mistakes), word
    assert len(set(found.mistakes)) == len(found.mistakes)
    assert {"north", "south"} <= {node.title for node in found.nodes}


def test_the_owner_is_told_which_labels_are_nearly_equal(run_config: Config, tmp_path: Path) -> None:
    """On their own machine: what stays out of messages is said here."""
    labels = ("neg", "Neg", "pos")
    (tmp_path / "near.csv").write_text("\n".join(("text,label", *(f"text {i},{labels[i % 3]}" for i in range(9)), "")))
    found = check(RunConfig.parse(run_config()), [{"data-path": str(tmp_path / "near.csv")}], silent)
    unnamed, mistake = found.mistakes
    assert "no labels are named" in unnamed
    assert "near.csv" in mistake and "'Neg' / 'neg'" in mistake


def test_models_that_cannot_do_what_a_run_asks_are_found(run_config: Config, tmp_path: Path) -> None:
    """Nothing that they say of themselves tells: they are tried."""
    FNetModel(FNetConfig(vocab_size=30522, hidden_size=16, num_hidden_layers=2, intermediate_size=32)).save_pretrained(
        tmp_path
    )
    load_tokenizer("minilm-l6").save_pretrained(tmp_path)
    raw = run_config(teacher=str(tmp_path), attention=1.0)
    (mistake,) = check(RunConfig.parse(raw), simulated_nodes(2), silent).mistakes
    assert str(tmp_path) in mistake and "attention" in mistake


def test_few_simulated_nodes_and_data_that_are_not_there_are_said_once(run_config: Config) -> None:
    found = check(RunConfig.parse(run_config(dataset="csv:/none.csv", min_train_nodes=5)), simulated_nodes(4), silent)
    assert len(found.mistakes) == 2
    assert found.nodes == ()


def test_held_out_rows_can_be_read_back(tmp_path: Path) -> None:
    rows = {"north, 1": (3, 17), "süd": (1,)}
    nodes = [CheckedNode(name, ("a", "b"), DataReport(held_out=held), 2, len(held)) for name, held in rows.items()]
    for suffix in ("json", "csv"):
        write_held_out(tmp_path / f"held.{suffix}", nodes)
    written = json.loads((tmp_path / "held.json").read_text(encoding="utf-8"))
    assert written == {name: list(held) for name, held in rows.items()}
    with (tmp_path / "held.csv").open(newline="", encoding="utf-8") as file:
        pairs = [(row["node"], int(row["row"])) for row in csv.DictReader(file)]
    assert pairs == [(name, row) for name, held in rows.items() for row in held]


def test_held_out_rows_go_to_no_other_kind_of_file(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path / "held.txt", r"end it in \.json or \.csv"),
        (tmp_path / "no" / "h.csv", "cannot be"),
    ):
        with pytest.raises(ConfigError, match=words):
            write_held_out(path, ())
    assert list(tmp_path.iterdir()) == []
