"""Csv and tsv files: what a writer wrote is read back, and what could be read in two ways is refused with its row."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkd_flwr.data.separated import read_separated
from fedkd_flwr.errors import DataError

CELLS = st.text(st.sampled_from(list("ab1 ,;|\t\n\r\"'\\é\u2028")), max_size=12)
LABELS = st.sampled_from(["pos", "neg", "a,b"])
QUOTING = st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])


def read(text: str, separator: str = ",") -> list[tuple[str, str]]:
    table = read_separated(text, "a.csv", separator, ("text", "label"), "label").table
    return list(zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True))


def written(rows: list[tuple[str, str]], separator: str, quoting: int, end: str = "\r\n") -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, quoting=quoting, lineterminator=end)  # type: ignore[call-overload]
    writer.writerows([("text", "label"), *rows])
    return text.getvalue()


@given(
    rows=st.lists(st.tuples(CELLS, LABELS), min_size=1, max_size=6),
    separator=st.sampled_from([",", ";", "|", ":"]),
    quoting=QUOTING,
)
def test_what_a_csv_writer_wrote_is_read_back(rows: list[tuple[str, str]], separator: str, quoting: int) -> None:
    assert read(written(rows, separator, quoting), separator) == rows
    if separator != ":":
        assert read(written(rows, separator, quoting), "") == rows


@given(rows=st.lists(st.tuples(CELLS, LABELS), min_size=1, max_size=6), quoting=QUOTING)
def test_what_a_writer_wrote_with_tabs_is_read_back_or_refused(rows: list[tuple[str, str]], quoting: int) -> None:
    """A text that holds line ends and as many tabs as a row of its own can be read in two ways."""
    two_ways = any("\t" in text and ("\n" in text or "\r" in text) for text, _ in rows)
    try:
        assert read(written(rows, "\t", quoting), "\t") == rows
    except DataError as error:
        assert two_ways and "it could be one text or several rows" in str(error)


@given(rows=st.lists(st.tuples(st.text(st.sampled_from("ab \"'\\"), min_size=1, max_size=8), LABELS), min_size=1))
def test_a_tab_separated_file_without_quoting_has_a_row_a_line(rows: list[tuple[str, str]]) -> None:
    """Quotes are part of the texts; only a text in whole quotes loses them, as in every other reader."""
    text = "text\tlabel\n" + "".join(f"{cell}\t{label}\n" for cell, label in rows)
    try:
        found = read(text, "\t")
    except DataError as error:
        assert "it could be one text or several rows" in str(error) and str(error).startswith("a.csv: row ")
        return
    assert [label for _, label in found] == [label for _, label in rows]
    for (cell, _), (read_cell, _) in zip(rows, found, strict=True):
        whole = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")
        assert read_cell == (cell[1:-1].replace('""', '"') if whole else cell)


def test_twelve_rows_of_which_two_begin_with_a_quote_are_twelve_examples() -> None:
    texts = [f"text {i}" for i in range(12)]
    texts[3], texts[7] = '"Well, said he', '"No" was the answer'
    text = "text\tlabel\n" + "".join(f"{cell}\t{i % 2}\n" for i, cell in enumerate(texts))
    assert [cell for cell, _ in read(text, "\t")] == texts


@pytest.mark.parametrize(
    ("text", "separator", "message"),
    [
        ('text,label\na,1\n"he said \\"hi\\" to me",0\n', ",", r"row 2 \(line 3\): a backslash stands before a quote"),
        ('text,label\n"5\\", 6\\" long",0\n', ",", r"row 1 \(line 2\): a backslash"),
        ('text,label\nhe said \\"hi\\",0\n', ",", r"row 1 \(line 2\): a backslash"),
        ('text,label\n"it ends in \\"",0\n"b",1\n', ",", r"row 1 \(line 2\): a backslash"),
        ('text,label\n"a\nb",1\n"c" d,0\n', ",", r"row 2 \(line 4\) goes on after a closing quote"),
        ('text,label\na,1\n"b,0\nc,1\n', ",", r"row 2 \(line 3\) begins a quote that does not end"),
        ('text,label\na,1\n"b,0\nc,1\nd",1\n', ",", r"row 2 \(line 3\) is quoted over lines that look like rows"),
        ('text\tlabel\na\t1\n"b\t0\nc"\t1\n', "\t", r"row 2 \(line 3\) begins a quote that ends 1 lines further"),
        ('text\tlabel\n"b\nc\t1\nd\te"\t1\n', "\t", r"row 1 \(line 2\) begins a quote that ends 2 lines further"),
        ("text\tlabel\na b 1\n", "\t", r"row 1 \(line 2\) has 1 columns where the header has 2, .* contain tabs"),
    ],
)
def test_what_has_no_one_reading_is_refused_with_row_and_line(text: str, separator: str, message: str) -> None:
    with pytest.raises(DataError, match=f"^a.csv: {message}"):
        read(text, separator)


@pytest.mark.parametrize("cell", ["C:\\dir\\", 'a \\"quoted\\" word', '\\"', "\\N", 'ends in "'])
def test_backslashes_of_a_csv_writer_are_data(cell: str) -> None:
    assert read(written([(cell, "1")], ",", csv.QUOTE_ALL)) == [(cell, "1")]
    assert read(written([(cell, "1")], ",", csv.QUOTE_MINIMAL)) == [(cell, "1")]


def test_texts_of_many_lines_are_texts() -> None:
    text = 'text,label\n"Dear all,\nit is good, really.\n\nYours, B",5\nshort,1\n'
    assert read(text) == [("Dear all,\nit is good, really.\n\nYours, B", "5"), ("short", "1")]


def test_a_text_longer_than_the_csv_module_allows_is_read() -> None:
    assert read(f"text,label\n{'a' * 300_000},1\n") == [("a" * 300_000, "1")]


def test_lines_are_those_of_the_file() -> None:
    rows = read_separated('\ntext,label\n\n"a\r\nb",1\r\n\r\nc,0', "a.csv", "", ("text", "label"), "label")
    assert rows.lines == [4, 7] and rows.names == ["text", "label"]


def test_a_separator_that_two_headers_fit_is_asked_for() -> None:
    with pytest.raises(DataError, match=r"a.csv: its header could be separated by ',' or ';': set .* 'data.separator'"):
        read_separated("x;text;y,text,z\n", "a.csv", "", ("text",), "label")
