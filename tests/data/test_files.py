import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fedkd_flwr.data.files import DataFile
from fedkd_flwr.errors import DataError

ROWS = [{"text": 'a, "quoted"\ntext', "label": "007"}, {"text": "NA", "label": "1"}]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl", "a.parquet"])
def test_every_kind_reads_back_what_was_written(name: str, write: Callable[..., str]) -> None:
    assert DataFile.find(write(name, ROWS)).read(("text", "label")).to_pylist() == ROWS


def test_prefix_overrules_suffix(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text\nhello\n")
    assert DataFile.find(f"csv:{tmp_path}/a.txt").read(("text",)).to_pylist() == [{"text": "hello"}]


def test_line_separators_inside_json_strings_are_not_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one\u2028two"}\n\n{"text": "three"}\n', encoding="utf-8")
    assert DataFile.find(f"{tmp_path}/a.jsonl").read(("text",))["text"].to_pylist() == ["one\u2028two", "three"]


def test_a_changed_file_is_another_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text\na\n")
    before = DataFile.find(str(path))
    assert DataFile.find(str(path)) == before
    path.write_text("text\nb\n")
    os.utime(path, ns=(0, before.stamp[1]))
    assert DataFile.find(str(path)) != before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "Empty CSV file"),
        ("a.csv", b"text,label\n", "no rows"),
        ("a.csv", b"text,label\nfine,1\n\na, secret,1\n", "row 2 has 3 columns where the header has 2"),
        ("a.csv", b"text,label\nfine,1\nsecret\n", "row 2 has 1 columns"),
        ("a.csv", b"text,label\n\xff,1\n", r"cannot be read as csv \(UTF-8\): .*invalid UTF8"),
        ("a.json", b"[", r"cannot be read as json \(UTF-8\)"),
        ("a.json", b"[]", "no rows"),
        ("a.json", b'[{"text": "a"}, 3]', "row 2 is no JSON object"),
        ("a.jsonl", b'{"text": "a"}\n{"text": secret}', "line 2 is not JSON: Expecting value at column 10"),
        ("a.jsonl", b'{"text": 1}\n{"text": "secret"}', "column 'text' mixes types"),
        ("a.jsonl", b'{"text": "\xff"}', "cannot be read as json"),
        ("a.parquet", b"secret", "cannot be read as parquet"),
    ],
)
def test_a_broken_file_is_named_in_one_line_without_its_content(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        DataFile.find(f"{tmp_path}/{name}").read(("text", "label"))
    assert str(error.value).startswith(f"{tmp_path}/{name}: ")
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{tmp_path}/none.csv: no such file"):
        DataFile.find(f"csv:{tmp_path}/none.csv")


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a.xlsx'.*csv:PATH"):
        DataFile.find(f"{tmp_path}/a.xlsx")
