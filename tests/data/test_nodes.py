import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedkd_flwr.data import DataReport, DataSettings, in_words, load_node_data, texts
from fedkd_flwr.errors import ConfigError, DataError
from fedkd_flwr.runtime.recent import Recent

Configure = Callable[..., DataSettings]
Write = Callable[..., str]


def rows(n: int, **columns: Any) -> list[dict[str, Any]]:
    return [{"text": f"text {i}", "label": ("ham", "spam")[i % 2], **columns} for i in range(n)]


@pytest.mark.parametrize("partition", ["natural", "iid", "dirichlet", "shard"])
def test_no_held_out_tweet_of_a_node_is_a_training_tweet_of_any(partition: str, configure: Configure) -> None:
    config = configure(partition=partition, max_test_examples=0)
    nodes = [load_node_data(config, {"partition-id": i, "num-partitions": 3}) for i in range(3)]
    train = [" ".join(text.casefold().split()) for node in nodes for text in node.train["text"][:]]
    test = [" ".join(text.casefold().split()) for node in nodes for text in node.test["text"][:]]
    assert len(set(train + test)) == len(train) + len(test) == 35483
    assert all(node.labels == ("negative", "neutral", "positive") for node in nodes)
    assert all(abs(len(node.test) - 0.1 * (len(node.train) + len(node.test))) <= 1 for node in nodes)


def test_natural_tweets_are_named_by_their_sources(configure: Configure) -> None:
    names = [load_node_data(configure(), {"partition-id": i, "num-partitions": 3}).name for i in range(3)]
    assert names == ["airlines+coachella", "apple+deflategate", "claritin+self_driving_cars"]
    with pytest.raises(DataError, match="7 nodes cannot share the 6 values of column 'source'"):
        load_node_data(configure(), {"partition-id": 0, "num-partitions": 7})


def test_the_held_out_tweets_are_few_and_mixed_like_the_nodes(configure: Configure) -> None:
    node = load_node_data(configure(), {"partition-id": 0, "num-partitions": 3})
    assert len(node.test) == 200
    for label in range(3):
        assert (
            abs(node.test["label"][:].count(label) / 200 - node.train["label"][:].count(label) / len(node.train)) < 0.02
        )


def test_another_process_makes_the_same_split(configure: Configure) -> None:
    code = """
import sys
from fedkd_flwr.config.groups import DataConfig
from fedkd_flwr.data import DataSettings, load_node_data
settings = DataSettings(DataConfig(**eval(sys.stdin.read())), "text-classification", 0)
node = load_node_data(settings, {"partition-id": 1, "num-partitions": 2})
print(node.test["text"][:])
"""
    config = configure(partition="iid")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", code]
    theirs = subprocess.run(
        command, input=repr(config.data.model_dump()), env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert eval(theirs) == load_node_data(config, {"partition-id": 1, "num-partitions": 2}).test["text"][:]


@pytest.mark.parametrize("prefix", ["", "csv:"])
def test_a_nodes_own_file_is_all_its_own(prefix: str, configure: Configure, write: Write) -> None:
    path = write("ward.csv", rows(40))
    node = load_node_data(configure(), {"data-path": prefix + path, "partition-id": 5, "num-partitions": 9})
    assert (node.name, node.labels) == ("ward", ("ham", "spam"))
    assert sorted(node.train["text"][:] + node.test["text"][:]) == sorted(row["text"] for row in rows(40))
    assert node.test["label"][:].count(0) == node.test["label"][:].count(1) == 2
    assert load_node_data(configure(), {"data-path": path, "name": "St Mary"}).name == "St Mary"


def test_a_changed_file_is_read_again(configure: Configure, write: Write) -> None:
    sizes = []
    for n in (20, 30):
        node = load_node_data(configure(), {"data-path": write("a.csv", rows(n))})
        sizes.append(len(node.train) + len(node.test))
    assert sizes == [20, 30]


def test_a_data_set_is_read_and_shared_out_once_for_the_nodes_of_a_process(
    configure: Configure, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(name: str) -> None:
        found = getattr(texts, name)
        monkeypatch.setattr(texts, name, lambda *arguments: calls.append(name) or found(*arguments))

    counted("read_examples")
    counted("share_out")
    settings = configure(dataset=f"csv:{write('a.csv', rows(100))}", partition="iid")
    recent, places = Recent(), [{"partition-id": i, "num-partitions": 40} for i in range(40)]
    together = [load_node_data(settings, place, recent) for place in places]
    assert calls == ["read_examples", "share_out"]
    assert [t.train[:] for t in together] == [load_node_data(settings, place).train[:] for place in places]


def test_repeated_texts_count_once(configure: Configure, write: Write) -> None:
    repeats = [{"text": f" TEXT  {i}", "label": "ham"} for i in range(10)]
    node = load_node_data(configure(), {"data-path": write("a.csv", rows(20) + repeats)})
    assert sorted(node.train["text"][:] + node.test["text"][:]) == sorted(row["text"] for row in rows(20))


@pytest.mark.parametrize("partitions", [0, 1, 3])
def test_what_is_left_out_is_counted_at_the_node_that_has_what_stays(
    partitions: int, configure: Configure, write: Write
) -> None:
    same = [{"text": f" TEXT  {i}", "label": ("ham", "spam")[i % 2]} for i in range(10)]
    other = [{"text": f"Text {i}", "label": ("spam", "ham")[i % 2]} for i in range(6)]
    path = write("a.csv", rows(20) + same + other)
    config = configure(dataset=f"csv:{path}", partition="iid", max_test_examples=0, test_fraction=0.2)
    places: list[Any] = [{"partition-id": i, "num-partitions": partitions} for i in range(partitions)]
    nodes = [load_node_data(config, place) for place in places or [{"data-path": path}]]
    assert sum(node.report.rows for node in nodes) == 36
    assert (sum(n.report.repeats for n in nodes), sum(n.report.conflicts for n in nodes)) == (10, 6)
    assert [sum(counts) for counts in zip(*(node.report.classes for node in nodes), strict=True)] == [10, 10]
    held = [number for node in nodes for number in node.report.held_out]
    texts = [text for node in nodes for text in node.test["text"][:]]
    assert sorted(texts) == sorted(f"text {number - 1}" for number in held) and len(set(held)) == len(held)
    assert all(list(node.report.held_out) == sorted(node.report.held_out) for node in nodes)


def test_what_the_owner_of_data_should_know_is_a_sentence_each() -> None:
    report = DataReport(rows=127, repeats=12, conflicts=3, unlabelled=4, cut=112, longest=900)
    assert in_words(report, 64) == [
        "12 of 127 rows repeat an earlier one and are left out",
        "3 of 127 rows repeat an earlier one under another label and are left out: see which is right",
        "4 rows have no label and are left out",
        "112 of 112 texts are longer than model.max-length (64 tokens; the longest has 900) and are cut",
    ]
    assert in_words(DataReport(rows=9, longest=7), 64) == []


def test_fixed_labels_keep_their_order_and_absent_classes(configure: Configure, write: Write) -> None:
    path = write("a.csv", rows(20))
    node = load_node_data(configure(labels="spam, ham, other"), {"data-path": path})
    assert node.labels == ("spam", "ham", "other")
    assert set(node.train["label"][:]) == {0, 1}
    with pytest.raises(DataError, match=rf"{path}: row 1 \(line 2\) has a label that is none of spam, eggs: correct"):
        load_node_data(configure(labels="spam,eggs"), {"data-path": path})


def test_labels_are_the_users_or_those_of_the_data(configure: Configure, write: Write) -> None:
    own: dict[str, Any] = {"data-path": write("a.csv", rows(4))}
    assert load_node_data(configure(labels="spam, ham"), own).labels == ("spam", "ham")
    assert load_node_data(configure(), own).labels == ("ham", "spam")
    with pytest.raises(ConfigError, match="labels names a label twice"):
        configure(labels="ham,ham")


def test_partitions_come_from_the_column_that_names_the_owner(configure: Configure, write: Write) -> None:
    path = write(
        "a.csv", rows(10, ward="north") + [{"text": f"s{i}", "label": "ham", "ward": "south"} for i in range(5)]
    )
    node = load_node_data(
        configure(dataset=f"csv:{path}", partition_column="ward"), {"partition-id": 1, "num-partitions": 2}
    )
    assert node.name == "south"
    assert len(node.train) + len(node.test) == 5
    with pytest.raises(DataError, match=r"column 'source' but found 0 among the 3 columns, separated by ','") as caught:
        load_node_data(configure(dataset=f"csv:{path}"), {"partition-id": 1, "num-partitions": 2})
    assert "ward" not in str(caught.value) and caught.value.detail == "that line has text, label, ward"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([{"text": "a", "label": 0}, {"text": "b", "label": 0}], "expected at least two different labels, found 1"),
        ([{"text": "a", "label": 0}, {"text": " A", "label": 1}], "has 1 different examples, expected at least 2"),
    ],
)
def test_too_little_to_learn_from_is_refused(
    data: list[dict[str, Any]], message: str, configure: Configure, write: Write
) -> None:
    path = write("a.parquet", data)
    with pytest.raises(DataError, match=rf"{path}: .*{message}"):
        load_node_data(configure(), {"data-path": path})


@pytest.mark.parametrize(
    ("node_config", "message"),
    [
        ({}, "neither data-path nor partition-id and num-partitions"),
        ({"partition-id": 3, "num-partitions": 3}, r"partition-id 3 is not in 0 ... 2"),
        ({"data-path": "/none/a.csv"}, "/none/a.csv: no such file"),
    ],
)
def test_a_node_without_data_is_told(node_config: dict[str, Any], message: str, configure: Configure) -> None:
    with pytest.raises(DataError, match=message):
        load_node_data(configure(), node_config)


def test_importing_the_package_is_cheap() -> None:
    code = "import sys, fedkd_flwr.data; print({'datasets', 'pandas', 'pyarrow', 'transformers'} & set(sys.modules))"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True) == "set()\n"
