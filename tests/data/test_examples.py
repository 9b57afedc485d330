from collections.abc import Callable
from typing import Any

import pytest
from datasets import Dataset

from fedkd_flwr.config import RunConfig
from fedkd_flwr.data import distinct_labels, load_examples, with_labels
from fedkd_flwr.errors import DataError

Configure = Callable[..., RunConfig]
Write = Callable[..., str]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl", "a.parquet"])
@pytest.mark.parametrize(
    ("values", "labels"),
    [([False, True], ("false", "true")), ([10, 9], ("9", "10")), (["spam", "ham"], ("ham", "spam"))],
)
def test_bool_int_and_str_labels_mean_the_same_in_every_kind_of_file(
    name: str, values: list[Any], labels: tuple[str, ...], configure: Configure, write: Write
) -> None:
    rows = [{"text": f"text {i}", "label": value} for i, value in enumerate(values)]
    examples = load_examples(write(name, rows), configure())
    assert examples.column_names == ["text", "label"]
    assert distinct_labels(examples) == labels
    assert with_labels(examples, labels)["label"][:] == [labels.index(label) for label in examples["label"][:]]


def test_whole_floats_are_whole_numbers(configure: Configure, write: Write) -> None:
    rows = [{"text": "a", "label": 1.0}, {"text": "b", "label": 0.0}]
    assert distinct_labels(load_examples(write("a.parquet", rows), configure())) == ("0", "1")


def test_with_labels_keeps_rows_of_a_selection_in_order() -> None:
    data = Dataset.from_dict({"text": ["a", "b", "c"], "label": ["x", "y", "x"]}).select([2, 1])
    assert with_labels(data, ("y", "x"))[:] == {"text": ["c", "b"], "label": [1, 0]}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"body": "a", "label": 1}], "expected one column 'text' but found 0: .*'text-column' to one of body, label"),
        (
            [{"text": "a", "class": 1}],
            "expected one column 'label' but found 0: .*'label-column' to one of text, class",
        ),
        ([{"text": "a", "label": 1}, {"text": "", "label": 1}], "row 2 has no 'text'"),
        ([{"text": "a", "label": 1}, {"text": " \t", "label": 1}], "row 2 has no 'text'"),
        ([{"text": "a", "label": 1}, {"text": None, "label": 1}], "row 2 has no 'text'"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": None}], "row 2 has no 'label'"),
        ([{"text": "a", "label": 1}, {"text": "b", "label": None}], "row 2 has no 'label'"),
        ([{"text": "a", "label": 0.5}], "column 'label' holds double, expected text, whole numbers or booleans"),
        ([{"text": ["a"], "label": 1}], "column 'text' holds list"),
    ],
)
def test_a_wrong_column_or_row_is_named(
    rows: list[dict[str, Any]], message: str, configure: Configure, write: Write
) -> None:
    path = write("a.parquet", rows)
    with pytest.raises(DataError, match=f"{path}: {message}"):
        load_examples(path, configure())


def test_a_column_that_appears_twice_is_refused(configure: Configure, tmp_path: Any) -> None:
    (tmp_path / "a.csv").write_text("text,text,label\na,b,1\n")
    with pytest.raises(DataError, match="expected one column 'text' but found 2"):
        load_examples(f"{tmp_path}/a.csv", configure())


def test_an_unexpected_label_is_named_with_its_row() -> None:
    data = Dataset.from_dict({"text": ["a", "b"], "label": ["spam", "smap"]})
    with pytest.raises(DataError, match=r"mail.csv: row 2 has the label 'smap', expected one of ham, spam"):
        with_labels(data, ("ham", "spam"), "mail.csv")
