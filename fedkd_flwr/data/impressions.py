"""Impressions of news: who was offered which news after which clicks, and which of them were clicked."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset
    from numpy.typing import NDArray

LABELS = ("not clicked", "clicked")


@dataclass(frozen=True)
class Impressions:
    """The impressions of a source.

    Attributes:
        titles: of all news, str.
        train: columns `user` (str), `time` (timestamp), `history` and `candidates` (lists of indices into `titles`)
            and `clicked` (list of int8, 1: the candidate was clicked), of which in each row one is and one is not; and
            `line` (int64), from 1, of its file.
        test: held out, the same columns; None where the source brings none.
    """

    titles: "pa.Array"
    train: "pa.Table"
    test: "pa.Table | None"


def as_dataset(impressions: "pa.Table", titles: "pa.Array") -> "Dataset":
    """A row for each impression.

    Returns:
        Columns `titles` (of the first row all that the impressions speak of, of the others none), `history` and
        `candidates` (int32 indices into them) and `clicked` (int8, 1: the candidate was).
    """
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset

    columns = {name: impressions[name].combine_chunks() for name in ("history", "candidates", "clicked")}
    indices = {name: columns[name].flatten().to_numpy() for name in ("history", "candidates")}
    used = np.unique(np.concatenate(list(indices.values())))
    for name, values in indices.items():
        lengths = columns[name].value_lengths().to_numpy()
        columns[name] = lists_of(ends_of(lengths), np.searchsorted(used, values).astype(np.int32))
    first = ends_of(np.where(np.arange(len(impressions)) == 0, len(used), 0))
    return Dataset(pa.table({"titles": lists_of(first, titles.take(pa.array(used))), **columns}))


def ends_of(lengths: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """Where each list ends in the values of all, [rows + 1]; the first entry is 0."""
    import numpy as np

    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def lists_of(ends: "NDArray[np.int64]", values: "pa.Array | NDArray[np.int32]") -> "pa.Array":
    """Lists of values, of which the i-th is values[ends[i] : ends[i + 1]]."""
    import pyarrow as pa

    return pa.LargeListArray.from_arrays(pa.array(ends), values if isinstance(values, pa.Array) else pa.array(values))
