"""The text of a file: unpacked, and decoded by its byte order mark or by the run's encoding."""

import bz2
import codecs
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from fedkd_flwr.errors import DataError

PACKED: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}
"""How files whose names end so are unpacked."""

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""By byte order mark; that of UTF-32 begins like that of UTF-16."""

_WORKBOOK = "an Excel workbook: export it as csv"

_OTHERS = {
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": _WORKBOOK,
    b"\x1f\x8b": "a gzip file: let its name end in .gz, or unpack it",
    b"BZh": "a bzip2 file: let its name end in .bz2, or unpack it",
    b"\xfd7zXZ": "an xz file: let its name end in .xz, or unpack it",
    b"\x28\xb5\x2f\xfd": "a zstd file: unpack it",
    b"PAR1": "a parquet file: let its name end in .parquet, or write parquet:PATH",
    b"ARROW1": "an Arrow file: convert it to parquet",
    b"SQLite format 3": "an SQLite database: export the table as csv",
    b"%PDF": "a PDF document: export its table as csv",
}
"""What files are that begin so."""


def read_text(path: Path, encoding: str) -> str:
    """All text of a file, without its byte order mark.

    Args:
        path: of the file; one that ends in .gz, .bz2 or .xz is unpacked.
        encoding: a codec; a byte order mark overrules it.

    Raises:
        DataError: it cannot be read, is another kind of file, or holds bytes that are no text of this encoding; says
            in which line, not what.
    """
    try:
        content = path.read_bytes()
        if unpack := PACKED.get(path.suffix.lower()):
            content = unpack(content)
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({type(error).__name__}): replace it") from None
    if other := _other_kind(content):
        raise DataError(f"{path}: is {other}", outside=f"its data file is {other}")
    found = next((codec for mark, codec in _MARKS.items() if content.startswith(mark)), encoding)
    try:
        text = content.decode(found)
    except UnicodeError as error:
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        line = content[:start].decode(found, errors="replace").count("\n") + 1
        raise DataError(
            f"{path}: line {line} is no {found} text: save the file as UTF-8, or set run-config key "
            "'data.encoding' to its "
            "encoding (often cp1252 or latin-1)",
            outside=f"its data file is no {found} text: save it as UTF-8, or set node-config key 'encoding'",
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DataError(
            f"{path}: line {line} holds a zero byte: save the file as UTF-8, or set run-config key 'data.encoding' "
            "to its "
            "encoding (often utf-16)"
        )
    return text


def _other_kind(content: bytes) -> str:
    """What a file is that is no text, and what to do; empty: nothing known."""
    if content.startswith(b"PK\x03\x04"):
        return _WORKBOOK if _is_workbook(content) else "a zip archive: unpack it"
    return next((kind for start, kind in _OTHERS.items() if content.startswith(start)), "")


def _is_workbook(content: bytes) -> bool:
    try:
        return any(name.startswith("xl/") for name in zipfile.ZipFile(io.BytesIO(content)).namelist())
    except zipfile.BadZipFile:
        return False
