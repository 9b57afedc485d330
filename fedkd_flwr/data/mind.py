"""Impressions of news as in MIND: who was offered which news after which clicks, and which of them they clicked.

A folder holds news.tsv (news id, category, subcategory, title, ...) and behaviors.tsv (impression id, user id, time,
clicked news ids, offered news ids that end in -1: clicked, or -0: not), both without a header. With folders train and
dev the impressions of dev are held out, otherwise the latest.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from fedkd_flwr.data.files import DataFile, stamp
from fedkd_flwr.data.impressions import Impressions, ends_of, lists_of
from fedkd_flwr.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

_NEWS, _BEHAVIORS = "news.tsv", "behaviors.tsv"
_TIME = "%m/%d/%Y %I:%M:%S %p"


def find(reference: str) -> DataFile:
    """The folder behind `mind:FOLDER` or a path.

    Raises:
        DataError: it is missing, or lacks news.tsv or behaviors.tsv.
    """
    path = Path(reference.removeprefix("mind:")).expanduser().absolute()
    if not path.is_dir():
        raise DataError(f"mind data {path}: no such folder, correct the path in {reference!r}")
    files = [folder / name for folder in _folders(path) for name in (_NEWS, _BEHAVIORS)]
    for file in files:
        if not file.is_file():
            raise DataError(
                f"mind data {path}: there is no {file.relative_to(path)}, expected {_NEWS} and {_BEHAVIORS} in it, "
                "or in its folders train and dev"
            )
    return DataFile("mind", path, tuple(number for file in files for number in stamp(file)))


def read(data: DataFile) -> Impressions:
    """All impressions of a folder in which some news was clicked and some was not.

    Raises:
        DataError: a line has too few columns, speaks of a news that news.tsv lacks, or does not say what was clicked;
            or no line is left.
    """
    import pyarrow as pa

    folders = _folders(data.path)
    expected = "a news id, a category, a subcategory and a title"
    news = [_read(folder / _NEWS, {"id": 0, "title": 3}, expected) for folder in folders]
    known = pa.concat_tables(news).combine_chunks()
    parts = [_impressions(folder / _BEHAVIORS, known["id"], len(folders) == 1) for folder in folders]
    return Impressions(known["title"].combine_chunks(), parts[0], parts[1] if len(parts) > 1 else None)


def _folders(path: Path) -> list[Path]:
    """The folder to train on and, where there is one, the folder to test on."""
    if not (path / "train").is_dir():
        return [path]
    return [path / "train", *([path / "dev"] if (path / "dev").is_dir() else [])]


def _read(path: Path, columns: dict[str, int], expected: str) -> "pa.Table":
    """These columns of a file as text."""
    import pyarrow as pa
    from pyarrow import csv

    uneven = []

    def note(row: "csv.InvalidRow") -> str:
        uneven.append(row)
        return "error"

    needed = max(columns.values()) + 1
    try:
        with path.open("rb") as file:
            count = file.readline().count(b"\t") + 1
        if count < needed:
            raise DataError(f"{path}: line 1 has {count} columns, expected {expected}, separated by tabs")
        names = [str(number) for number in range(count)]
        table = csv.read_csv(
            path,
            read_options=csv.ReadOptions(column_names=names, use_threads=False, block_size=1 << 24),
            parse_options=csv.ParseOptions(delimiter="\t", quote_char=False, invalid_row_handler=note),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.large_string()),
                include_columns=[str(column) for column in columns.values()],
            ),
        )
    except (pa.ArrowException, OSError) as error:
        if uneven:
            raise DataError(
                f"{path}: line {uneven[0].number} has {uneven[0].actual_columns} columns where the first line has "
                f"{uneven[0].expected_columns}, expected {expected}, separated by tabs"
            ) from None
        raise DataError(
            f"{path}: cannot be read as tab-separated text (UTF-8): replace it", str(error).splitlines()[0]
        ) from None
    return table.rename_columns(list(columns)).combine_chunks()


def _impressions(path: Path, known: "pa.ChunkedArray", timed: bool) -> "pa.Table":
    """Those of a file in which some news was clicked and some was not; `timed`: each line needs its time."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    expected = "an impression id, a user id, a time, the clicked and the offered news ids"
    table = _read(path, {"user": 1, "time": 2, "history": 3, "candidates": 4}, expected)
    times = pc.strptime(table["time"], format=_TIME, unit="s", error_is_null=True)
    if timed and times.null_count:
        raise DataError(
            f"{path}: line {pc.index(times.is_null(), True).as_py() + 1} has no time as 11/15/2019 8:55:22 AM in its "
            "third column, which tells the latest impressions: they are held out"
        )
    clicks, click_ends = _words(table["history"])
    offered, ends = _words(table["candidates"])
    found = pc.extract_regex(offered, r"^(?P<news>.+)-(?P<clicked>[01])$")
    _require(path, found.is_null(), ends, "offers a news without saying whether it was clicked, expected ID-1 or ID-0")
    history = _indices(path, clicks, click_ends, known, "clicked")
    candidates = _indices(path, found.field("news"), ends, known, "offered")
    clicked = found.field("clicked").cast(pa.int8()).to_numpy()
    rows = np.repeat(np.arange(len(table)), np.diff(ends))
    positive = np.bincount(rows, clicked, len(table))
    kept = (positive > 0) & (positive < np.diff(ends))
    if not kept.any():
        raise DataError(f"{path}: in no line is one of the offered news clicked (ID-1) and another not (ID-0)")
    if not kept.all():
        _log.info(
            "%s: %d of %d lines are left out: none or all of the offered news were clicked", path, sum(~kept), len(kept)
        )
    columns = {
        "history": lists_of(click_ends, history),
        "candidates": lists_of(ends, candidates),
        "clicked": lists_of(ends, clicked),
    }
    lines = pa.array(np.arange(1, len(table) + 1))
    return pa.table({"user": table["user"], "time": times, "line": lines, **columns}).take(np.flatnonzero(kept))


def _words(column: "pa.ChunkedArray") -> tuple["pa.Array", "NDArray[np.int64]"]:
    """The words of all rows; those of row i are words[ends[i] : ends[i + 1]]."""
    import numpy as np
    import pyarrow.compute as pc

    rows = pc.split_pattern(column.combine_chunks(), " ")
    words, parents = rows.flatten(), pc.list_parent_indices(rows)
    kept = pc.not_equal(words, "")
    return words.filter(kept), ends_of(np.bincount(parents.filter(kept).to_numpy(), minlength=len(rows)))


def _indices(
    path: Path, ids: "pa.Array", ends: "NDArray[np.int64]", known: "pa.ChunkedArray", what: str
) -> "NDArray[np.int32]":
    import pyarrow.compute as pc

    indices = pc.index_in(ids, value_set=known)
    _require(
        path,
        indices.is_null(),
        ends,
        f"has among its {what} news one that {_NEWS} lacks, add it there or remove it here",
    )
    found: NDArray[np.int32] = indices.to_numpy()
    return found


def _require(path: Path, wrong: "pa.Array", ends: "NDArray[np.int64]", problem: str) -> None:
    """No word is wrong; which line holds the first that is."""
    import numpy as np
    import pyarrow.compute as pc

    if (word := pc.index(wrong, True).as_py()) >= 0:
        raise DataError(f"{path}: line {np.searchsorted(ends, word, side='right')} {problem}")
