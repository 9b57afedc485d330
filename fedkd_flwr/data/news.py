"""A node's impressions of news: those of its source, or its share of them, split into train and held out."""

from typing import TYPE_CHECKING, cast

from fedkd_flwr.data.files import DataFile
from fedkd_flwr.data.impressions import LABELS, Impressions, as_dataset
from fedkd_flwr.data.node_data import DataReport, NodeData
from fedkd_flwr.data.partition import share_rows
from fedkd_flwr.data.reading import News, find, reader_of
from fedkd_flwr.data.settings import DataSettings
from fedkd_flwr.data.split import drawn
from fedkd_flwr.errors import DataError
from fedkd_flwr.runtime.recent import Recent

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset
    from numpy.typing import NDArray


def load_news(
    file: DataFile, settings: DataSettings, name: str, partition: int, partitions: int, recent: Recent
) -> NodeData:
    """All impressions of a source, as those of node `name`; or where there are `partitions`, those of one.

    Natural partitions hold all impressions of a user. Where none are held out, the latest
    `data.test-fraction` of the node's are.

    Raises:
        DataError: what is wrong with them; or so many nodes cannot share them, or one is left with too few.
    """
    import numpy as np

    key, where = ("news", file), str(file.path)
    found = recent.get(key, lambda: _read(file))
    rng = np.random.default_rng((settings.seed, partition))
    train, test = found.train, found.test
    if partitions:
        name = f"partition-{partition}"
        shares = recent.get((*key, settings, partitions), lambda: _shared_out(found, settings, partitions, where))
        _, mine, held = shares[partition]
        train, test = train.take(mine), None if test is None else test.take(held)
    if test is None:
        train, test = _latest(train, settings.data.test_fraction)
    if not (len(train) and len(test)):
        raise DataError(
            f"{where}: node {partition} has {len(train)} impressions to train on and {len(test)} to test on, expected "
            "at least one of each: bring more, or run fewer nodes"
        )
    rows, test = len(train) + len(test), test.take(drawn(len(test), settings.data.max_test_examples, rng))
    report = DataReport(rows=rows, held_out=tuple(sorted(test["line"].to_pylist())))
    return NodeData(name, as_dataset(train, found.titles), as_dataset(test, found.titles), LABELS, report)


def load_test_news(source: str, settings: DataSettings, labels: tuple[str, ...]) -> "Dataset":
    """All impressions of a source; where some are held out, these."""
    found = _read(find(source, "news"))
    return as_dataset(found.train if found.test is None else found.test, found.titles)


def _read(file: DataFile) -> Impressions:
    return cast(News, reader_of(file, "news")).read(file)


def _shared_out(
    found: Impressions, settings: DataSettings, partitions: int, where: str
) -> list[tuple[str, "NDArray[np.int64]", "NDArray[np.int64]"]]:
    """Of each node its name, its rows of those to learn from, and of those held out."""
    owners = found.train["user"].to_pylist() + ([] if found.test is None else found.test["user"].to_pylist())
    users = len(set(owners))
    if settings.data.partition == "natural" and partitions > users:
        raise DataError(f"{where}: {partitions} nodes cannot share {users} users: run at most {users} nodes")
    return share_rows(owners, len(found.train), settings, partitions, where)


def _latest(table: "pa.Table", fraction: float) -> tuple["pa.Table", "pa.Table"]:
    """The rows without the latest, and these: a share of all, at least one, and one is left."""
    import numpy as np

    rows = np.argsort(table["time"].to_numpy(), kind="stable")
    held = min(max(round(fraction * len(rows)), 1), len(rows) - 1)
    cut = len(rows) - max(held, 0)
    return table.take(np.sort(rows[:cut])), table.take(np.sort(rows[cut:]))
