import bz2
import gzip
import io
import lzma
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedkd_flwr.data.files import DataFile
from fedkd_flwr.data.rows import Rows
from fedkd_flwr.errors import DataError

ROWS = [{"text": 'a, "quoted"\ntext', "label": "007"}, {"text": "NA", "label": "1"}]


def read(reference: str | Path, *wanted: str, separator: str = "auto", encoding: str = "utf-8") -> Rows:
    return DataFile.find(str(reference)).read(wanted or ("text", "label"), "label", separator, encoding)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl", "a.parquet"])
def test_every_kind_reads_back_what_was_written(name: str, write: Callable[..., str]) -> None:
    assert read(write(name, ROWS)).table.to_pylist() == ROWS


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl"])
def test_packed_files_read_as_they_are(
    name: str, suffix: str, pack: Callable[[bytes], bytes], write: Callable[..., str]
) -> None:
    plain = Path(write(name, ROWS))
    packed = Path(f"{plain}{suffix}")
    packed.write_bytes(pack(plain.read_bytes()))
    assert read(packed).table.to_pylist() == ROWS
    assert DataFile.find(str(packed)).name == "a"
    packed.write_bytes(pack(plain.read_bytes())[:-9])
    with pytest.raises(DataError, match=f"{packed}: cannot be read"):
        read(packed)


def test_prefix_overrules_suffix(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text\nhello\n")
    assert read(f"csv:{tmp_path}/a.txt", "text").table.to_pylist() == [{"text": "hello"}]


def test_line_separators_inside_json_strings_are_not_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one\u2028two"}\n\n{"text": "three"}\n', encoding="utf-8")
    rows = read(f"{tmp_path}/a.jsonl", "text")
    assert (rows.table["text"].to_pylist(), rows.lines) == (["one\u2028two", "three"], [1, 3])


def test_columns_that_nobody_asks_for_may_mix_types(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "other": 1}\n{"text": "b", "other": "x"}\n')
    assert read(tmp_path / "a.jsonl", "text").table.to_pylist() == [{"text": "a"}, {"text": "b"}]


def test_a_changed_file_is_another_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text\na\n")
    before = DataFile.find(str(path))
    assert DataFile.find(str(path)) == before
    path.write_text("text\nb\n")
    os.utime(path, ns=(0, before.stamp[1]))
    assert DataFile.find(str(path)) != before


def archive(name: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr(name, "secret")
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "it is empty, expected a header and rows"),
        ("a.csv", b"text,label\n", "no rows"),
        ("a.csv", b"text,label\nfine,1\n\na, secret,1\n", r"row 2 \(line 4\) has 3 columns where the header has 2"),
        ("a.csv", b'text,label\n"f\n\n",1\nsecret\n', r"row 2 \(line 5\) has 1 columns"),
        ("a.csv", b"text,label\n\n\xff,1\n", "line 3 is no utf-8 text: .* set run-config key 'data.encoding'"),
        ("a.csv", "text,label\na,1".encode("utf-16-le"), "line 1 holds a zero byte: .*'data.encoding'.*utf-16"),
        ("a.csv", archive("xl/workbook.xml"), "is an Excel workbook: export it as csv"),
        ("a.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1secret", "is an Excel workbook: export it as csv"),
        ("a.csv", archive("a.csv"), "is a zip archive: unpack it"),
        ("a.csv", gzip.compress(b"secret", mtime=0), "is a gzip file: let its name end in .gz"),
        ("a.json", bz2.compress(b"secret"), "is a bzip2 file"),
        ("a.csv.gz", b"secret", "cannot be read"),
        ("a.csv", b"PAR1secret", "is a parquet file"),
        ("a.json", b"[", "line 1 is not JSON"),
        ("a.json", b'[{"text": "a"},\n secret]', "line 2 is not JSON: Expecting value at column 2"),
        ("a.json", b"[" * 100_000, "line 1 is no JSON that can be read"),
        ("a.json", b"[]", "no rows"),
        ("a.json", b'{"text": {"0": "secret"}, "label": {"0": 1}}', "it is one object of columns"),
        ("a.json", b'[{"text": "a"}, 3]', "row 2 is no JSON object"),
        ("a.jsonl", b'{"text": "a"}\n{"text": secret}', "line 2 is not JSON: Expecting value at column 10"),
        ("a.jsonl", b'{"text": 1}\n\n{"text": "secret"}', r"row 2 \(line 3\) has another type in column 'text'"),
        ("a.jsonl", b'{"text": "\xff"}', "line 1 is no utf-8 text"),
        ("a.parquet", b"secret", "cannot be read as parquet"),
    ],
)
def test_a_broken_file_is_named_in_one_line_without_its_content(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path}/{name}: ")
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{tmp_path}/none.csv: no such file"):
        DataFile.find(f"csv:{tmp_path}/none.csv")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.text", r"a.text'.*csv:PATH"),
        ("a.xlsx", r"a.xlsx: is a workbook .*: export it as csv"),
        ("a.XLS", r"a.XLS: is a workbook"),
    ],
)
def test_an_unknown_suffix_is_refused(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        DataFile.find(f"{tmp_path}/{name}")


@pytest.mark.parametrize(
    ("encoding", "bom"),
    [("utf-8", b""), ("utf-8", b"\xef\xbb\xbf"), ("utf-16", b""), ("utf-32", b""), ("cp1252", b""), ("latin-1", b"")],
)
def test_text_is_decoded_by_its_mark_or_as_the_run_says(encoding: str, bom: bytes, tmp_path: Path) -> None:
    content = "text,label\r\nca fé,né\r\n"
    known: dict[str, Any] = {"encoding": encoding} if encoding in ("cp1252", "latin-1") else {}
    for name, text in (("a.csv", content), ("a.jsonl", '{"text": "ca fé", "label": "né"}')):
        (tmp_path / name).write_bytes(bom + text.encode(encoding))
        assert read(tmp_path / name, **known).table.to_pylist() == [{"text": "ca fé", "label": "né"}]
