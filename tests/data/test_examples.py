from collections.abc import Callable
from typing import Any

import pytest
from datasets import Dataset

from fedkd_flwr.data import DataSettings, distinct_labels, load_examples, load_node_data, with_labels
from fedkd_flwr.errors import DataError, at_node

Configure = Callable[..., DataSettings]
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
        (
            [{"body": "a", "label": 1}],
            "expected one column 'text' but found 0: .*'data.text-column' to one of body, label",
        ),
        (
            [{"text": "a", "class": 1}],
            "expected one column 'label' but found 0: .*'data.label-column' to one of text, class",
        ),
        ([{"text": "a", "label": 1}, {"text": "", "label": 1}], "row 2 has no 'text'"),
        ([{"text": "a", "label": 1}, {"text": " \t", "label": 1}], "row 2 has no 'text'"),
        ([{"text": "a", "label": 1}, {"text": None, "label": 1}], "row 2 has no 'text'"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": None}], "row 2 has no 'label'"),
        ([{"text": "a", "label": 1}, {"text": "b", "label": None}], "row 2 has no 'label'"),
        (
            [{"text": "a", "label": 0.5}],
            "row 1 is not whole in column 'label', which holds double, expected text, whole numbers or booleans",
        ),
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
    data = Dataset.from_dict({"text": ["a", "b"], "label": ["spam", "smap"], "row": [1, 2], "line": [0, 0]})
    with pytest.raises(DataError, match=r"mail.csv: row 2 has a label that is none of ham, spam: correct it"):
        with_labels(data, ("ham", "spam"), "mail.csv")


NAN = float("nan")


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.parquet"])
@pytest.mark.parametrize("labels", [[1.0, NAN, 0.0], [1, None, 0], ["x", None, "y"], [0, 1.0, NAN], ["x", "y", " "]])
def test_a_row_without_a_label_is_named_or_left_out_where_the_run_says_so(
    name: str, labels: list[Any], configure: Configure, write: Write
) -> None:
    """NaN is no label: so pandas writes a cell that is empty."""
    path = write(name, [{"text": f"t{i}", "label": label} for i, label in enumerate(labels)])
    gap = next(i for i, label in enumerate(labels) if label in (None, " ") or label != label)
    line = rf" \(line {gap + 1}\)" if name == "a.jsonl" else ""
    with pytest.raises(
        DataError, match=rf"{path}: row {gap + 1}{line} has no 'label': .*'data.skip-unlabelled' to true"
    ):
        load_examples(path, configure())
    kept = load_examples(path, configure(skip_unlabelled=True))["text"][:]
    assert kept == [f"t{i}" for i in range(3) if i != gap]


def test_nan_among_texts_is_missing_in_json(configure: Configure, tmp_path: Any) -> None:
    (tmp_path / "a.json").write_text('[{"text": "a", "label": "x"}, {"text": "b", "label": NaN}]')
    with pytest.raises(DataError, match="row 2 has no 'label'"):
        load_examples(f"{tmp_path}/a.json", configure())


def test_a_number_without_a_value_is_left_out_where_the_run_says_so(configure: Configure, write: Write) -> None:
    path = write("a.parquet", [{"text": f"t{i}", "label": label} for i, label in enumerate([1.5, None, NAN, 2.5])])
    with pytest.raises(DataError, match="row 2 has no finite number in column 'label'"):
        load_examples(path, configure(task="regression"))
    assert load_examples(path, configure(task="regression", skip_unlabelled=True))["label"][:] == [1.5, 2.5]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl", "a.parquet"])
@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (["neg", "Neg"], "in case"),
        (["true", "True"], "in case"),
        (["0", "0.0"], "in how a number is written"),
        (["007", "7"], "in how a number is written"),
        (["not good", "not  good"], "in white space"),
        (["caf\u00e9", "cafe\u0301"], "in how their characters are encoded"),
    ],
)
def test_labels_that_are_nearly_one_are_refused_by_kind_unless_the_run_names_them(
    name: str, labels: list[str], kind: str, configure: Configure, write: Write
) -> None:
    path = write(name, [{"text": f"t{i}", "label": labels[i % 2]} for i in range(10)])
    place: dict[str, Any] = {"data-path": path}
    with pytest.raises(DataError, match=f"2 of its 2 labels differ from another only {kind}: ") as caught:
        load_node_data(configure(), place)
    assert labels[0] not in str(caught.value).replace(path, "") and repr(labels[0]) in caught.value.detail
    assert load_node_data(configure(labels=",".join(labels)), place).labels == tuple(labels)
    with pytest.raises(DataError, match=rf"differs from it only {kind}\): correct it, or name all labels"):
        load_node_data(configure(labels=f"{labels[0]},other"), place)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl", "a.parquet"])
def test_labels_are_stripped_in_the_data_and_in_the_run(name: str, configure: Configure, write: Write) -> None:
    rows = [{"text": f"t{i}", "label": (" neg", "neg", "pos\t", "pos")[i % 4]} for i in range(12)]
    for labels in ("", " pos , neg "):
        data = load_node_data(configure(labels=labels), {"data-path": write(name, rows)})
        assert sorted(data.labels) == ["neg", "pos"] and sum(data.report.classes) == 12
        assert data.report.classes == (6, 6)


def test_what_programs_write_for_no_value_is_no_label(configure: Configure, write: Write) -> None:
    rows = [{"text": f"t{i}", "label": ("a", "b", "nan")[i % 3]} for i in range(9)]
    with pytest.raises(DataError, match="one of its labels says that there is no label"):
        load_node_data(configure(), {"data-path": write("a.csv", rows)})
    assert load_node_data(configure(labels="a,b,nan"), {"data-path": write("a.csv", rows)}).report.rows == 9


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text;label\na, b;x\nc;y\n"),
        ("a.csv", "label|id|text\nx|1|a, b\ny|2|c\n"),
        ("a.csv", "text\tlabel\na, b\tx\nc\ty\n"),
        ("a.csv", '\ufefftext , label\n"a, b",x\nc,y\n'),
        ("a.tsv", "id\ttext\tlabel\n1\ta, b\tx\n2\tc\ty\n"),
    ],
)
def test_the_separator_is_what_the_header_shows(name: str, content: str, configure: Configure, tmp_path: Any) -> None:
    (tmp_path / name).write_text(content)
    assert load_examples(f"{tmp_path}/{name}", configure())[:] == {"text": ["a, b", "c"], "label": ["x", "y"]}


@pytest.mark.parametrize(("separator", "character"), [("tab", "\t"), (";", ";"), ("~", "~")])
def test_a_separator_is_what_the_run_says(separator: str, character: str, configure: Configure, tmp_path: Any) -> None:
    (tmp_path / "a.csv").write_text(f"text{character}label\na,b{character}x\n")
    assert load_examples(f"{tmp_path}/a.csv", configure(separator=separator))["text"][:] == ["a,b"]


def test_a_file_without_a_header_is_asked_about_it_and_its_cells_stay_here(configure: Configure, tmp_path: Any) -> None:
    (tmp_path / "a.csv").write_text("a secret;1;x\nanother;0;y\n")
    with pytest.raises(DataError, match=r"among the 3 columns, .* ';', .* is that line a header") as caught:
        load_examples(f"{tmp_path}/a.csv", configure())
    assert "secret" not in str(caught.value) and "a secret" in caught.value.detail
    with pytest.raises(DataError, match=r"^node north: ") as named, at_node("north"):
        load_examples(f"{tmp_path}/a.csv", configure())
    assert named.value.detail == caught.value.detail
