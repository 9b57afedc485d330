"""A user's own csv, tsv, json and parquet files as Arrow tables, read without a cache on disk."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from fedkd_flwr.config.groups import DataConfig
from fedkd_flwr.data.decoding import PACKED, read_text
from fedkd_flwr.data.json_rows import read_json
from fedkd_flwr.data.rows import Rows
from fedkd_flwr.data.separated import read_separated
from fedkd_flwr.errors import DataError

_KINDS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}
_WORKBOOKS = (".xlsx", ".xls", ".xlsm", ".ods")


_LITTER = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found"}
"""Names of what systems leave in folders, in lower case; as of names that begin with a dot, none of it is data."""


def visible(folder: Path) -> list[Path]:
    """What a folder holds, sorted, without hidden files and what systems leave behind."""
    found = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in found if path.name.lower() not in _LITTER)


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
        suffix = _unpacked(path).suffix.lower()
        if suffix in _WORKBOOKS:
            raise DataError(f"data file {path}: is a workbook (Excel, say): export it as csv")
        kind = prefix if named else _KINDS.get(suffix)
        if kind is None:
            raise DataError(
                f"data file {reference!r}: its suffix does not tell its kind, "
                f"write csv:PATH, json:PATH or parquet:PATH, or end it in {', '.join(_KINDS)} (.gz, .bz2, .xz)"
            )
        if not path.is_file():
            raise DataError(
                f"data file {path}: no such file, correct the path in {reference!r}",
                outside="there is no file at its data-path",
            )
        return cls(kind, path, stamp(path))

    @property
    def name(self) -> str:
        """Of the folder, or of the file without its suffixes."""
        return self.path.name if self.path.is_dir() else _unpacked(self.path).stem

    def read(self, wanted: Collection[str], label: str, separator: str, encoding: str) -> Rows:
        """All rows; of csv files the columns that are wanted, kept as they are written (007 stays 007).

        Args:
            wanted: names of columns.
            label: which of them holds labels.
            separator: of csv files: "tab", another character, or "auto": a tab where their name ends in .tsv, and
                otherwise what the header shows.
            encoding: of csv and json files without a byte order mark.

        Raises:
            DataError: the file is empty or not what its kind says.
        """
        where = str(self.path)
        match self.kind:
            case "csv":
                tsv = _unpacked(self.path).suffix.lower() == ".tsv"
                known = {"tab": "\t", "auto": "\t" if tsv else ""}.get(separator, separator)
                rows = read_separated(read_text(self.path, encoding), where, known, wanted, label)
            case "json":
                rows = read_json(read_text(self.path, encoding), where, wanted)
            case _:
                rows = self._parquet()
        if not rows.count:
            raise DataError(f"{where}: no rows, give a file with at least 2 examples")
        return rows

    def _parquet(self) -> Rows:
        import pyarrow as pa
        from pyarrow import parquet

        try:
            table = parquet.read_table(self.path, partitioning=None)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.path}: cannot be read as parquet: replace it", str(error).splitlines()[0]) from None
        return Rows(table, len(table), table.column_names)


find = DataFile.find


def read(file: DataFile, columns: Collection[str], data: DataConfig) -> dict[str, Rows]:
    """`DataFile.read`; see `Tables.read`."""
    return {"": file.read(columns, data.label_column, data.separator, data.encoding)}


def _unpacked(path: Path) -> Path:
    """The path without a suffix of compression."""
    return path.with_suffix("") if path.suffix.lower() in PACKED else path
