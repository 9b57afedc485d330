from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from fedkd_flwr.data import DataSettings, data_fingerprint, load_node_data, load_test_data
from fedkd_flwr.errors import DataError

Configure = Callable[..., DataSettings]
NAMES = ["spam", "ham", "eggs"]
FEATURES = Features({"body": Value("string"), "kind": ClassLabel(names=NAMES), "ward": Value("string")})
COLUMNS = {"text_column": "body", "label_column": "kind"}


def split(name: str, count: int, kind: int | None = None) -> Dataset:
    rows = [{"body": f"{name} {i}", "kind": i % 2 if kind is None else kind, "ward": "ns"[i % 2]} for i in range(count)]
    return Dataset.from_dict({column: [row[column] for row in rows] for column in FEATURES}, FEATURES)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    """Save a data set of these splits; `alone` without splits."""

    def build(**splits: Dataset) -> str:
        (splits.get("alone") or DatasetDict(splits)).save_to_disk(tmp_path / "mail")
        return str(tmp_path / "mail")

    return build


def texts(dataset: Dataset) -> list[str]:
    return sorted(dataset["text"][:])


@pytest.mark.parametrize("prefix", ["", "hf:"])
@pytest.mark.parametrize("held_out", ["test", "validation"])
def test_the_splits_are_the_nodes_and_class_names_its_labels(
    prefix: str, held_out: str, configure: Configure, save: Callable[..., str]
) -> None:
    path = save(**{"train": split("a", 20), held_out: split("b", 9), "unsupervised": split("c", 5, -1)})
    node = load_node_data(configure(**COLUMNS, max_test_examples=0), {"data-path": prefix + path})
    assert (node.name, node.labels) == ("mail", tuple(NAMES))
    assert texts(node.train) == sorted(f"a {i}" for i in range(20))
    assert texts(node.test) == sorted(f"b {i}" for i in range(9))
    assert all(
        node.labels[label] == NAMES[int(text[2:]) % 2] for text, label in zip(*node.train[:].values(), strict=True)
    )
    fewer = load_node_data(configure(**COLUMNS, max_test_examples=4), {"data-path": prefix + path})
    assert sorted(fewer.test["label"][:]) == [0, 0, 1, 1] and set(texts(fewer.test)) < set(texts(node.test))


def test_without_splits_examples_are_held_out_as_of_a_file(configure: Configure, save: Callable[..., str]) -> None:
    node = load_node_data(configure(**COLUMNS), {"data-path": save(alone=split("a", 40))})
    assert sorted(texts(node.train) + texts(node.test)) == sorted(f"a {i}" for i in range(40))
    assert len(node.test) == 4


def test_hidden_labels_do_not_count(configure: Configure, save: Callable[..., str]) -> None:
    path = save(train=split("a", 20), test=split("b", 5, -1), validation=split("c", 5))
    assert texts(load_node_data(configure(**COLUMNS), {"data-path": path}).test) == [f"c {i}" for i in range(5)]


def test_a_text_in_both_splits_is_held_out(configure: Configure, save: Callable[..., str]) -> None:
    both = Dataset.from_list(
        [{"body": " A  3", "kind": 1, "ward": "n"}, {"body": "b", "kind": 0, "ward": "n"}], FEATURES
    )
    node = load_node_data(configure(**COLUMNS), {"data-path": save(train=split("a", 10), test=both)})
    assert texts(node.test) == [" A  3", "b"] and "a 3" not in texts(node.train) and len(node.train) == 9


@pytest.mark.parametrize("partition", ["natural", "iid", "dirichlet", "shard"])
def test_both_splits_are_shared_out(partition: str, configure: Configure, save: Callable[..., str]) -> None:
    path = save(train=split("a", 60), test=split("b", 20))
    config = configure(**COLUMNS, dataset=f"hf:{path}", partition=partition, partition_column="ward")
    places = [{"partition-id": i, "num-partitions": 2} for i in range(2)]
    found = [load_node_data(config, place) for place in places]
    assert sorted(texts(found[0].train) + texts(found[1].train)) == sorted(f"a {i}" for i in range(60))
    assert sorted(texts(found[0].test) + texts(found[1].test)) == sorted(f"b {i}" for i in range(20))
    assert found[0].labels == found[1].labels == tuple(NAMES)


def test_the_server_scores_on_what_is_held_out(configure: Configure, save: Callable[..., str]) -> None:
    path = save(train=split("a", 20), test=split("b", 5))
    found = load_test_data(f"hf:{path}", configure(**COLUMNS), tuple(NAMES))
    assert (found.column_names, texts(found)) == (["text", "label"], [f"b {i}" for i in range(5)])


def test_a_changed_data_set_is_read_again(configure: Configure, save: Callable[..., str], tmp_path: Path) -> None:
    config, sizes, prints = configure(**COLUMNS), [], set()
    for count in (20, 30):
        path = save(train=split("a", count), test=split("b", 5))
        sizes.append(len(load_node_data(config, {"data-path": path}).train))
        prints.add(data_fingerprint(config, {"data-path": path}))
    assert sizes == [20, 30] and len(prints) == 2


def null(column: str) -> Dataset:
    row: dict[str, Any] = {"body": "x", "kind": 1, "ward": "n"}
    return Dataset.from_list([row, row | {column: None}], FEATURES)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"test": split("a", 5)}, "expected a split train but found test"),
        ({"train": split("a", 0), "test": split("b", 2)}, "data set .*mail cannot be read: "),
        ({"train": split("a", 5), "test": null("body")}, "mail, split test: row 2 has no 'body'"),
        ({"train": null("kind")}, "mail, split train: row 2 has no 'kind'"),
        (
            {"train": split("a", 5).rename_column("body", "t")},
            "split train: expected one column 'body' .* one of t, kind",
        ),
    ],
)
def test_what_is_wrong_is_named(
    splits: dict[str, Dataset], message: str, configure: Configure, save: Callable[..., str]
) -> None:
    with pytest.raises(DataError, match=message):
        load_node_data(configure(**COLUMNS), {"data-path": save(**splits)})


def test_an_unexpected_label_is_named_with_split_and_row(configure: Configure, save: Callable[..., str]) -> None:
    path = save(train=split("a", 5, 1), test=split("b", 3, 0))
    with pytest.raises(DataError, match="held-out row 1 has a label that is none of ham, eggs"):
        load_node_data(configure(**COLUMNS, labels="ham,eggs"), {"data-path": path})


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("hf:/none", "data set /none: no such folder, correct the path in 'hf:/none'"),
        ("hf:{tmp_path}", "save_to_disk has not written this folder"),
        ("hf:nobody/nothing", r"data set nobody/nothing cannot be read: .*looked for on the Hugging Face Hub"),
    ],
)
def test_a_data_set_that_is_not_there_is_named(
    reference: str, message: str, configure: Configure, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_node_data(configure(), {"data-path": reference.format(tmp_path=tmp_path)})
    assert "\n" not in str(caught.value)
