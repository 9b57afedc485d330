from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedkd_flwr.data import DataSettings, NodeData, data_fingerprint, load_node_data
from fedkd_flwr.errors import ConfigError, DataError

Configure = Callable[..., DataSettings]
Write = Callable[[str, list[dict[str, Any]]], str]
KINDS = ["csv", "tsv", "json", "jsonl", "parquet"]


def load(config: DataSettings, path: str) -> NodeData:
    return load_node_data(config, {"data-path": path})


def rows(data: NodeData) -> dict[str, Any]:
    return {t: label for part in (data.train, data.test) for t, label in zip(part["text"], part["label"], strict=True)}


@pytest.mark.parametrize("kind", KINDS)
def test_texts_with_several_labels(kind: str, configure: Configure, write: Write) -> None:
    lists = {"t0": ["b", "a"], "t1": [], "t2": ["c"], "t3": ["a"], "t4": ["c", "b", "a"]}
    config = configure(task="multi-label", label_separator="|", partition="iid")
    joined = write(f"x.{kind}", [{"text": text, "label": " | ".join(names)} for text, names in lists.items()])
    data = load(config, joined)
    assert data.labels == ("a", "b", "c")
    assert rows(data) == {text: ["abc".index(name) for name in names] for text, names in lists.items()}
    if kind not in ("csv", "tsv"):
        listed = write(f"y.{kind}", [{"text": text, "label": names} for text, names in lists.items()])
        assert rows(load(config, listed)) == rows(data)


def test_classes_may_be_numbers_and_missing(configure: Configure, write: Write) -> None:
    config = configure(task="multi-label")
    for path in (
        write("x.jsonl", [{"text": "t", "label": [1, 10]}, {"text": "u", "label": None}, {"text": "v", "label": [2]}]),
        write("y.parquet", [{"text": "t", "label": "1;10"}, {"text": "u", "label": None}, {"text": "v", "label": "2"}]),
    ):
        data = load(config, path)
        assert (data.labels, rows(data)) == (("1", "2", "10"), {"t": [0, 2], "u": [], "v": [1]})
    single = load(config, write("z.parquet", [{"text": t, "label": n} for t, n in (("t", 1), ("u", None), ("v", 2))]))
    assert (single.labels, rows(single)) == (("1", "2"), {"t": [0], "u": [], "v": [1]})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", [False, True], ids=["numbers", "texts"])
def test_texts_with_a_number(kind: str, texts: bool, configure: Configure, write: Write) -> None:
    numbers = [3.5, -2.0, 1e6, 0.25, 7.0]
    path = write(f"x.{kind}", [{"text": f"t{i}", "label": str(n) if texts else n} for i, n in enumerate(numbers)])
    data = load(configure(task="regression"), path)
    assert data.labels == ("-2", "1000000")
    assert rows(data) == {f"t{i}": n for i, n in enumerate(numbers)}
    assert load(configure(task="regression", labels="0, 10"), path).labels == ("0", "10")


def test_the_held_out_part_has_rare_classes_and_all_heights(configure: Configure, write: Write) -> None:
    many = [{"text": f"t{i}", "label": "rare;common" if i % 10 == 0 else "common"} for i in range(200)]
    data = load(configure(task="multi-label", test_fraction=0.1, max_test_examples=0), write("x.jsonl", many))
    assert len(data.test) == 20 and sum(len(row) == 2 for row in data.test["label"]) == 2
    numbers = [{"text": f"t{i}", "label": i} for i in range(200)]
    held = load(configure(task="regression", test_fraction=0.1), write("y.jsonl", numbers)).test["label"][:]
    assert np.diff(sorted([0.0, *held, 200.0])).max() <= 20


def test_a_task_reads_the_same_file_anew(configure: Configure, write: Write) -> None:
    place = {"data-path": write("x.csv", [{"text": "a", "label": "1"}, {"text": "b", "label": "2"}])}
    found = {data_fingerprint(configure(task=t), place) for t in ("text-classification", "multi-label", "regression")}
    assert len(found) == 3


@pytest.mark.parametrize(
    ("task", "labels", "message"),
    [
        ("multi-label", [["a"], ["b", " "]], r"x.jsonl: row 2 \(line 2\) has a blank among its 'label', remove it"),
        ("multi-label", [1.5, 2.5], r"x.jsonl: column 'label' holds double, expected texts like \"a;b\" or lists"),
        ("multi-label", ["a", "a"], r"x.jsonl: expected at least two different labels, found 1"),
        (
            "regression",
            ["1", "dear"],
            r"x.jsonl: row 2 \(line 2\) has no finite number in column 'label': correct",
        ),
        ("regression", ["inf", "2"], r"x.jsonl: row 1 \(line 1\) has no finite number in column 'label'"),
        ("regression", [2, None], r"x.jsonl: row 2 \(line 2\) has no finite number in column 'label'"),
        ("multi-label", [{"secret": 1}, {"secret": 2}], r"x.jsonl: column 'label' holds struct, expected texts like"),
        ("regression", [True, False], r"column 'label' holds bool, expected numbers: set task to"),
        ("regression", [2, 2.0], r"x.jsonl: expected at least two different labels, found 1"),
    ],
)
def test_errors_name_file_row_and_column(
    task: str, labels: list[Any], message: str, configure: Configure, write: Write
) -> None:
    path = write("x.jsonl", [{"text": f"t{i}", "label": label} for i, label in enumerate(labels)])
    with pytest.raises(DataError, match=message):
        load(configure(task=task), path)


def test_a_label_that_is_not_named_is_an_error_of_its_row(configure: Configure, write: Write) -> None:
    path = write("x.csv", [{"text": "t", "label": "a"}, {"text": "u", "label": ""}, {"text": "v", "label": "a;hat"}])
    with pytest.raises(DataError, match=r"x.csv: row 3 \(line 4\) has a label that is none of a, b: correct") as caught:
        load(configure(task="multi-label", labels="a,b"), path)
    assert "hat" not in str(caught.value).split() and "hat" in caught.value.detail


@pytest.mark.parametrize("labels", ["1", "5,1", "low,high", "1,2,3", "1,1", "nan,2", "0,inf"])
def test_the_range_of_a_regression_is_two_numbers(labels: str, configure: Configure) -> None:
    with pytest.raises(ConfigError, match="should be the lowest and the highest number of a regression: '1,5'"):
        configure(task="regression", labels=labels)


@pytest.mark.parametrize(
    ("task", "partition"),
    [
        ("multi-label", "dirichlet"),
        ("multi-label", "shard"),
        ("regression", "dirichlet"),
        ("token-classification", "shard"),
    ],
)
def test_shares_by_class_need_one_class_an_example(task: str, partition: str, configure: Configure) -> None:
    with pytest.raises(ConfigError, match=f"partition '{partition}' needs one class an example, task is '{task}'"):
        configure(task=task, partition=partition, dataset="hf:x")


@pytest.mark.parametrize(("labels", "count", "few"), [(10, 12, True), (11, 100, False), (11, 110, True), (3, 3, True)])
def test_labels_that_the_data_decide_on_are_few(
    labels: int, count: int, few: bool, write: Write, configure: Configure
) -> None:
    """Ten, or a tenth of the rows: otherwise the column may be one of texts. Those that are named may be more."""
    path = write("a.csv", [{"text": f"text {i}", "label": f"l{i % labels}"} for i in range(count)])
    place = {"partition-id": 0, "num-partitions": 1}
    config = {"dataset": f"csv:{path}", "partition": "iid"}
    if few:
        assert len(load_node_data(configure(**config), place).labels) == labels
        return
    with pytest.raises(
        DataError, match=rf"{labels} different labels in {count} rows: is .*'data.label-column' right"
    ) as caught:
        load_node_data(configure(**config), place)
    assert "l3" not in str(caught.value)
    assert (
        len(load_node_data(configure(**config, labels=",".join(f"l{i}" for i in range(labels))), place).labels)
        == labels
    )


def test_a_label_that_is_a_text_is_refused(write: Write, configure: Configure) -> None:
    path = write("a.csv", [{"text": f"text {i}", "label": ("no", 101 * "y")[i % 2]} for i in range(40)])
    with pytest.raises(DataError, match=r"the longest has 101 characters, expected at most 1000 of 100"):
        load_node_data(configure(dataset=f"csv:{path}", partition="iid"), {"partition-id": 0, "num-partitions": 1})
