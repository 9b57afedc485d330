"""traffic.csv: every byte of the codec that travelled, written down before it is sent or counted."""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from fedkd_flwr.codec import EncodedUpdate
from fedkd_flwr.errors import StateError
from fedkd_flwr.runtime.disk import flush


@dataclass(frozen=True)
class TrafficRow:
    """One tensor of one message: a row of traffic.csv."""

    round: int
    node: str
    direction: str
    tensor: str
    kind: str
    rank: int
    bits: int
    bytes: int
    energy: float | None


TRAFFIC = "traffic.csv"
"""Name of the file in the folder of a run."""

Totals = Counter[tuple[int, str]]
"""Bytes by round and direction, "up" or "down"."""

_COLUMNS = [column.name for column in fields(TrafficRow)]


class Ledger:
    """The rows of a run, on disk once they are added; a run that is killed and resumed loses none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._totals = Totals()

    @classmethod
    def create(cls, path: Path) -> "Ledger":
        """An empty one.

        Raises:
            OSError: the disk refuses.
        """
        with path.open("w", newline="") as file:
            csv.writer(file).writerow(_COLUMNS)
        return cls(path)

    @classmethod
    def load(cls, path: Path) -> "Ledger":
        """All whole rows of a file; half a row, of a run that was killed while it wrote, is cut off.

        Raises:
            StateError: it cannot be read, or a row is damaged; names file and row.
        """
        ledger = cls(path)
        try:
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            os.truncate(path, len(whole))
            rows = csv.DictReader(io.StringIO(whole.decode(), newline=""))
        except (OSError, UnicodeDecodeError) as error:
            raise StateError(f"resume: {path} cannot be read: {error}") from None
        try:
            ledger._totals = counted(rows)
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise StateError(f"resume: row {rows.line_num} of {path} is damaged ({error}): remove that row") from None
        return ledger

    def add(self, rows: Sequence[TrafficRow]) -> None:
        """Write rows to the disk.

        Raises:
            StateError: the disk refuses.
        """
        try:
            with self._path.open("a", newline="") as file:
                csv.writer(file).writerows(asdict(row).values() for row in rows)
            flush(self._path)
        except OSError as error:
            raise StateError(
                f"cannot write {self._path}: {error}; free space, then set run.resume to {self._path.parent}"
            ) from None
        for row in rows:
            self._totals[row.round, row.direction] += row.bytes

    def total(self, round: int, direction: str) -> int:
        """Bytes of a round that went "up" or "down", over all nodes and all attempts at the round."""
        return self._totals[round, direction]


def counted(rows: Iterable[Mapping[str, str]]) -> Totals:
    """The totals of the rows of a file, each by column.

    Raises:
        ValueError, KeyError, TypeError, csv.Error: a row is damaged.
    """
    totals = Totals()
    for row in rows:
        totals[int(row["round"]), row["direction"]] += int(row["bytes"])
    return totals


def traffic_rows(round: int, node: str, direction: str, encoded: EncodedUpdate) -> list[TrafficRow]:
    """The rows of one encoded update, its header among them: their bytes sum to what travels."""
    return [
        TrafficRow(round, node, direction, "(header)", "header", 0, 8, encoded.header_nbytes, None),
        *(
            TrafficRow(round, node, direction, row.name, row.kind, row.rank, row.bits, row.nbytes, row.energy)
            for row in encoded.rows()
        ),
    ]


def dropped_row(round: int, node: str, nbytes: int) -> TrafficRow:
    """The row of an update that travelled but was not taken."""
    return TrafficRow(round, node, "up", "(dropped)", "dropped", 0, 8, nbytes, None)
