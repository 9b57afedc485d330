"""What stands in traffic.csv survives a kill at any instant, whole row by whole row."""

import csv
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkd_flwr.errors import StateError
from fedkd_flwr.tracking.traffic_log import Ledger, TrafficRow

names = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1, max_size=8)
rows = st.builds(
    TrafficRow,
    round=st.integers(0, 3),
    node=names,
    direction=st.sampled_from(["up", "down"]),
    tensor=names,
    kind=st.just("factors"),
    rank=st.integers(0, 9),
    bits=st.integers(1, 32),
    bytes=st.integers(0, 10**9),
    energy=st.none() | st.floats(0, 1),
)


def totals(ledger: Ledger) -> dict[tuple[int, str], int]:
    return {(n, way): total for n in range(4) for way in ("up", "down") if (total := ledger.total(n, way))}


def summed(written: list[TrafficRow]) -> dict[tuple[int, str], int]:
    counter: Counter[tuple[int, str]] = Counter()
    for row in written:
        counter[row.round, row.direction] += row.bytes
    return {key: total for key, total in counter.items() if total}


@given(st.lists(st.lists(rows, max_size=4), max_size=4), st.data())
def test_a_ledger_cut_anywhere_keeps_its_whole_rows_and_goes_on(batches: list[list[TrafficRow]], data: st.DataObject):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "traffic.csv"
        ledger = Ledger.create(path)
        head = path.stat().st_size
        for batch in batches:
            ledger.add(batch)
        written = [row for batch in batches for row in batch]
        assert totals(ledger) == totals(Ledger.load(path)) == summed(written)

        content = path.read_bytes()
        kept = content[: data.draw(st.integers(head, len(content)))]
        path.write_bytes(kept)
        whole = written[: kept.count(b"\n") - 1]
        ledger = Ledger.load(path)
        assert totals(ledger) == summed(whole)
        ledger.add(written)
        assert totals(ledger) == totals(Ledger.load(path)) == summed(whole + written)
        with path.open(newline="") as file:
            assert [row["node"] for row in csv.DictReader(file)] == [row.node for row in whole + written]


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "traffic.csv"
    Ledger.create(path)
    with path.open("a") as file:
        file.write("1,north,up,w,dense,0,32,4,1.0\n1,north,up,w,dense,0,32,\0\0\0,1.0\n")
    with pytest.raises(StateError, match=r"row 3 of .*traffic\.csv is damaged"):
        Ledger.load(path)
    with pytest.raises(StateError, match="cannot be read"):
        Ledger.load(tmp_path / "nothing.csv")


def test_a_disk_that_is_full_is_named(tmp_path: Path) -> None:
    (tmp_path / "traffic.csv").symlink_to("/dev/full")
    row = TrafficRow(1, "north", "up", "w", "dense", 0, 32, 4, 1.0)
    with pytest.raises(StateError, match=r"cannot write .*traffic\.csv: .*No space left.*set run.resume to"):
        Ledger(tmp_path / "traffic.csv").add([row])
