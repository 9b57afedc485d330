"""What a node learns from and is tested on, and what it needs of either."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedkd_flwr.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class DataReport:
    """Counts of a node's data, without any of their content.

    Attributes:
        rows: of the data that are this node's: its examples and the repeats among them.
        repeats: rows that are left out because an earlier one holds the same text under the same label.
        conflicts: rows that are left out although they hold the text of an earlier one under another label.
        unlabelled: rows without a label, left out of the whole data set because `data.skip-unlabelled` says so.
        classes: examples of each label, in the order of `NodeData.labels`; empty where the labels are no classes.
        held_out: which rows are tested on, ascending, counted from 1 as errors count them; in data of two splits within
            the one that is held out.
        cut: texts of more than `model.max-length` tokens, of which the rest is not read.
        longest: tokens of the longest text before it is cut; 0: not counted.
    """

    rows: int = 0
    repeats: int = 0
    conflicts: int = 0
    unlabelled: int = 0
    classes: tuple[int, ...] = ()
    held_out: tuple[int, ...] = ()
    cut: int = 0
    longest: int = 0


def in_words(report: DataReport, max_length: int) -> list[str]:
    """What the owner of data should know of them, a sentence each; nothing where all of it is read."""
    texts = report.rows - report.repeats - report.conflicts
    most = f"{max_length} tokens" + (f"; the longest has {report.longest}" if report.longest else "")
    found = {
        f"{report.repeats} of {report.rows} rows repeat an earlier one and are left out": report.repeats,
        f"{report.conflicts} of {report.rows} rows repeat an earlier one under another label and are left out: "
        "see which is right": report.conflicts,
        f"{report.unlabelled} rows have no label and are left out": report.unlabelled,
        f"{report.cut} of {texts} texts are longer than model.max-length ({most}) and are cut": report.cut,
    }
    return [sentence for sentence, count in found.items() if count]


@dataclass(frozen=True)
class NodeData:
    """Examples of one node: no text, sentence or impression of `test` is in `train`, and no file of an image.

    Attributes:
        name: whose they are.
        train: columns `text` (str), `pair` (str) where texts come in pairs, and `label` (int64 index into `labels`), in
            the order of the data; of texts with several labels `label` is a list of int64, for regression float64; of
            tagged words `words` (list of str) and `label` (list of int64); of images `image` (path) and `label`; of
            impressions those of `fedkd_flwr.data.impressions.as_dataset`.
        test: held out, the same columns.
        labels: the names of all classes, also of those that this node has no example of; of numbers the lowest and
            the highest.
        report: what was counted while they were read; nothing is cut yet.
    """

    name: str
    train: "Dataset"
    test: "Dataset"
    labels: tuple[str, ...]
    report: DataReport = DataReport()


def require_two(examples: int, name: str, where: str) -> None:
    """A node needs this many examples.

    Raises:
        DataError: they are fewer than two.
    """
    if examples < 2:
        raise DataError(
            f"{where}: node {name!r} has {examples} different examples, expected at least 2: "
            "one to train on and one to test on",
            outside="it has fewer than 2 different examples",
        )
