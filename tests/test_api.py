"""The public API: what a notebook calls gives what the Flower apps give."""

import csv
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import ClassLabel, Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from support.documented import run_on_tiny
from support.federation import Config, assert_same_models, nodes, rows
from support.loopback import LoopbackGrid, run_server

import fedkd_flwr as fedkd
from fedkd_flwr.errors import ConfigError, DataError, FedKDError, RunError, StateError

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def tweets(tweets_csv: Path) -> Dataset:
    with tweets_csv.open(newline="") as file:
        return Dataset.from_list([{**row, "text": " ".join(row["text"].split())} for row in csv.DictReader(file)])


def test_the_import_is_light_and_every_name_is_there() -> None:
    script = (
        "import sys, fedkd_flwr; print({'torch', 'flwr', 'datasets'} & set(sys.modules)); "
        "print(all(getattr(fedkd_flwr, name) for name in fedkd_flwr.__all__), set(fedkd_flwr.__all__) <= set(dir()))"
    ).replace("dir()", "dir(fedkd_flwr)")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()", "True", "True"]
    with pytest.raises(AttributeError, match="no_such"):
        fedkd.no_such  # noqa: B018


@given(
    parts=st.integers(1, 4),
    scheme=st.sampled_from(["iid", "dirichlet", "shard", "natural"]),
    labels=st.lists(st.sampled_from("abc"), min_size=24, max_size=60),
    seed=st.integers(0, 5),
)
@settings(max_examples=25)
def test_each_row_is_in_one_part(parts: int, scheme: Any, labels: list[str], seed: int) -> None:
    dataset = Dataset.from_dict({"row": range(len(labels)), "tag": labels})
    try:
        found = fedkd.partition(dataset, parts, scheme, alpha=5.0, column="tag", seed=seed)
    except DataError as error:
        assert "\n" not in str(error)
        assert scheme in ("dirichlet", "shard") or len(set(labels)) < parts
        return
    assert len(found) == parts
    assert sorted(row for part in found for row in part["row"][:]) == list(range(len(labels)))
    assert all(part.column_names == ["row", "tag"] for part in found)
    again = fedkd.partition(dataset, parts, scheme, alpha=5.0, column="tag", seed=seed)
    assert [part["row"][:] for part in again] == [part["row"][:] for part in found]
    if scheme == "natural":
        owners = [set(part["tag"][:]) for part in found]
        assert sum(map(len, owners)) == len(set.union(*owners))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"num_partitions": 0}, "num_partitions is 0"),
        ({"num_partitions": 2, "scheme": "even"}, "'even' is unknown: expected iid, dirichlet, shard, natural"),
        ({"num_partitions": 2, "scheme": "natural"}, "set column"),
        ({"num_partitions": 2, "scheme": "shard", "column": "tag"}, "no column 'tag' but text, label"),
        ({"num_partitions": 300, "scheme": "iid"}, "rows: make fewer parts"),
        ({"num_partitions": 2, "scheme": "dirichlet", "column": "owner"}, "row 3 has nothing in column 'owner'"),
        ({"num_partitions": 9, "scheme": "natural", "column": "label"}, "9 nodes cannot share the"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_shared_out_is_said_in_a_line(tweets: Dataset, arguments: dict[str, Any], says: str) -> None:
    if arguments.get("column") == "owner":
        tweets = tweets.add_column("owner", [None if row == 2 else "x" for row in range(len(tweets))])
    with pytest.raises(DataError) as raised:
        fedkd.partition(tweets, **arguments)
    assert says in str(raised.value) and "\n" not in str(raised.value)


def test_a_simulation_is_the_federation_of_its_config(run_config: Config, tmp_path: Path) -> None:
    """To the last bit; and the run comes back from its folder as it was returned."""
    raw = run_config()
    expected = run_server(LoopbackGrid(raw | {"run.name": "loopback"}, nodes(2)))
    run = fedkd.simulate(fedkd.RunConfig.parse(raw), 2, runs_dir=tmp_path / "mine", progress=False)
    assert run.folder == tmp_path / "mine" / "run"
    assert_same_models(run.folder, expected)

    again = fedkd.load_run(run.folder)
    assert again == run and again.config.run.name == "run"
    same = again.student.state_dict()
    assert all(torch.equal(tensor, same[name]) for name, tensor in run.student.state_dict().items())
    assert [client.name for client in run.clients] == ["partition-0", "partition-1"]
    for client in run.clients:
        assert client.teacher.config.num_hidden_layers == 4 > run.student.config.num_hidden_layers

    table = run.history.to_pandas()
    assert table.index.tolist() == [0, 1, 2] and table["trained"].tolist()[1:] == [2, 2]
    assert table["student_accuracy"].tolist() == [
        run.history.after(number).student["accuracy"]
        for number in range(3)  # type: ignore[index]
    ]
    ledger = rows(run.folder)
    for direction in ("up", "down"):
        for number in (1, 2):
            sizes = [row["bytes"] for row in ledger if (row["round"], row["direction"]) == (str(number), direction)]
            assert run.traffic[direction][number] == sum(map(int, sizes))
    assert run.traffic["up"].tolist() == table["bytes_up"].tolist()[1:]


def test_clients_have_the_data_that_they_are_given(run_config: Config, tweets: Dataset) -> None:
    """Labels are those of all clients, though one of them lacks some; what is held out stays held out."""
    config = fedkd.RunConfig.parse(run_config(num_rounds=1))
    first = tweets.filter(lambda row: row["label"] == "neutral")
    second = tweets.shuffle(seed=0).select(range(50)).train_test_split(10, shuffle=False)
    before = config.as_run_config()
    run = fedkd.simulate(config, [first, second], progress=False)
    assert config.as_run_config() == before
    counts = run.history.data
    assert counts["partition-0"]["title"] == "client-0"
    assert counts["partition-0"]["rows"] == len(first)
    assert counts["partition-1"]["rows"] == 50
    scored = run.history.rounds[-1].nodes
    assert scored is not None and scored["partition-1"]["test-examples"] == 10
    assert set(run.student.config.id2label.values()) == set(tweets["label"][:])


def test_one_data_set_is_shared_out_as_the_config_says(run_config: Config, tweets: Dataset, tmp_path: Path) -> None:
    """Names of a ClassLabel are the labels, in their order."""
    names = sorted(set(tweets["label"][:]), reverse=True)
    coded = tweets.map(lambda row: {"label": names.index(row["label"])}).cast_column("label", ClassLabel(names=names))
    config = fedkd.RunConfig.parse(run_config(num_rounds=1, partition="shard", method="local"))
    run = fedkd.simulate(config, coded, num_clients=3, progress=False)
    assert len(run.clients) == 3
    assert [run.clients[0].teacher.config.id2label[i] for i in range(len(names))] == names
    with pytest.raises(StateError, match="no student"):
        run.student  # noqa: B018


@pytest.mark.parametrize(
    ("data", "arguments", "says"),
    [
        ("tweets", {}, "set num_clients"),
        ("list", {"num_clients": 3}, "num_clients is 3 but there are 2 clients"),
        ("list", {"engine": "gpu"}, "engine 'gpu' is unknown: expected local or ray"),
        (1, {}, "federation.min-train-nodes is 2 but there are 1 clients"),
        (0, {}, "there are 0 clients"),
        (["text", "text"], {}, "the data of client 0 are a str"),
    ],
    ids=str,
)
def test_bad_input_is_said_in_a_line(
    run_config: Config, tweets: Dataset, tmp_path: Path, data: Any, arguments: dict[str, Any], says: str
) -> None:
    data = {"tweets": tweets, "list": [tweets, tweets]}.get(data, data) if isinstance(data, str) else data
    with pytest.raises(FedKDError) as raised:
        fedkd.simulate(fedkd.RunConfig.parse(run_config()), data, **arguments)
    assert says in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "runs").exists()


def test_what_is_wrong_with_the_data_ends_the_run_in_a_line(run_config: Config, tweets: Dataset) -> None:
    renamed = tweets.rename_column("text", "review")
    with pytest.raises(DataError) as wrong:
        fedkd.simulate(fedkd.RunConfig.parse(run_config()), [renamed, renamed], progress=False)
    assert "data.text-column" in str(wrong.value) and "\n" not in str(wrong.value)
    with pytest.raises(RunError) as failed:
        fedkd.simulate(fedkd.RunConfig.parse(run_config()), renamed, num_clients=2, progress=False)
    assert "data.text-column" in str(failed.value) and "\n" not in str(failed.value)
    images = fedkd.RunConfig.parse(run_config(task="image-classification", dataset="imagefolder:pictures"))
    with pytest.raises(ConfigError, match=r"set data\.dataset to imagefolder:PATH"):
        fedkd.simulate(images, [tweets, tweets])


def test_a_mistaken_config_is_said_in_a_line() -> None:
    with pytest.raises(ConfigError) as raised:
        fedkd.RunConfig(num_rounds=0, train={"local_step": 8})
    assert "num-rounds" in str(raised.value) and "train.local-step" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_folder_without_a_run_is_none(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="holds no run"):
        fedkd.load_run(tmp_path)
    (tmp_path / "history.json").write_text('{"config": {"seed": "x"}}')
    with pytest.raises(StateError, match="not of a run of this version"):
        fedkd.load_run(tmp_path)


def test_the_readmes_lines_run(
    tiny_bert: Path,
    tweets: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On a tiny model."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    tweets.to_csv("reviews.csv", index=False)
    found = run_on_tiny(block, tiny_bert)
    assert found["run"].history.rounds[-1].trained == 4
    assert "student_accuracy" in capsys.readouterr().out
