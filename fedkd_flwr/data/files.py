"""A user's own csv, tsv, json and parquet files as Arrow tables, read without a cache on disk."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedkd_flwr.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_KINDS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}


def stamp(path: Path) -> tuple[int, ...]:
    """What differs once a file's content has changed, even where its size and time of change were put back."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


@dataclass(frozen=True)
class DataFile:
    """A file (a folder of some, see `iob`) as it is now: it compares equal only while it stays the same."""

    kind: str
    path: Path
    stamp: tuple[int, ...]

    @classmethod
    def find(cls, reference: str) -> "DataFile":
        """The file behind `csv:PATH`, `json:PATH`, `parquet:PATH` or a path whose suffix tells its kind.

        Raises:
            DataError: the file is missing, or neither prefix nor suffix tells what it is.
        """
        prefix, colon, rest = reference.partition(":")
        named = bool(colon) and prefix in _KINDS.values()
        path = Path(rest if named else reference).expanduser().absolute()
        kind = prefix if named else _KINDS.get(path.suffix.lower())
        if kind is None:
            raise DataError(
                f"data file {reference!r}: its suffix does not tell its kind, "
                f"write csv:PATH, json:PATH or parquet:PATH, or end it in {', '.join(_KINDS)}"
            )
        if not path.is_file():
            raise DataError(f"data file {path}: no such file, correct the path in {reference!r}")
        return cls(kind, path, stamp(path))

    @property
    def name(self) -> str:
        """Of the folder, or of the file without its suffix."""
        return self.path.name if self.path.is_dir() else self.path.stem

    def read(self, text_columns: Collection[str]) -> "pa.Table":
        """All rows and columns; in csv files the `text_columns` are kept as they are written (007 stays 007).

        Raises:
            DataError: the file is empty or not what its kind says.
        """
        import pyarrow as pa

        readers = {"csv": self._csv, "json": self._json, "parquet": self._parquet}
        try:
            table = readers[self.kind](text_columns)
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{self.path}: cannot be read as {self.kind} (UTF-8): {reason}") from None
        if table.num_rows == 0:
            raise DataError(f"{self.path}: no rows, give a file with at least 2 examples")
        return table

    def _csv(self, text_columns: Collection[str]) -> "pa.Table":
        import pyarrow as pa
        from pyarrow import csv

        uneven: list[Any] = []

        def note(row: Any) -> str:
            uneven.append(row)
            return "error"

        separator = "\t" if self.path.suffix.lower() == ".tsv" else ","
        try:
            return csv.read_csv(
                self.path,
                read_options=csv.ReadOptions(use_threads=False, block_size=1 << 24),
                parse_options=csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=note),
                convert_options=csv.ConvertOptions(column_types=dict.fromkeys(text_columns, pa.string())),
            )
        except pa.ArrowInvalid:
            if not uneven:
                raise
            # Arrow's message quotes the row: private text, which an error reply would carry to the server.
            row = uneven[0]
            raise DataError(
                f"{self.path}: row {row.number - 1} has {row.actual_columns} columns where the header has "
                f"{row.expected_columns}, quote texts that contain {separator!r}"
            ) from None

    def _json(self, _: Collection[str]) -> "pa.Table":
        import pyarrow as pa

        text = self.path.read_text(encoding="utf-8-sig")
        if text.lstrip().startswith("["):
            rows = json.loads(text)
        else:
            rows = [self._json_row(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        for number, row in enumerate(rows, 1):
            if not isinstance(row, dict):
                raise DataError(f"{self.path}: row {number} is no JSON object, expected {{column: value, ...}}")
        columns = {}
        for name in {key: None for row in rows for key in row}:
            try:
                columns[name] = pa.array([row.get(name) for row in rows])
            except pa.ArrowException:
                raise DataError(f"{self.path}: column {name!r} mixes types, write all its values as text") from None
        return pa.table(columns)

    def _json_row(self, number: int, line: str) -> Any:
        try:
            return json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{self.path}: line {number} is not JSON: {error.msg} at column {error.colno}") from None

    def _parquet(self, _: Collection[str]) -> "pa.Table":
        from pyarrow import parquet

        return parquet.read_table(self.path, partitioning=None)
