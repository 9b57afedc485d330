"""What a node learns from and is tested on, and what it needs of either."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedkd_flwr.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class NodeData:
    """Examples of one node: no text, sentence or impression of `test` is in `train`, and no file of an image.

    Attributes:
        name: whose they are.
        train: columns `text` (str) and `label` (int64 index into `labels`), in the order of the data; of texts with
            several labels `label` is a list of int64, for regression float64; of tagged words `words` (list of str)
            and `label` (list of int64); of images `image` (path) and `label`; of impressions those of
            `fedkd_flwr.data.mind.as_dataset`.
        test: held out, the same columns.
        labels: the names of all classes, also of those that this node has no example of; of numbers the lowest and
            the highest.
    """

    name: str
    train: "Dataset"
    test: "Dataset"
    labels: tuple[str, ...]


def checked_labels(labels: tuple[str, ...], where: str) -> tuple[str, ...]:
    """`labels`.

    Raises:
        DataError: they are fewer than two, or not all different.
    """
    if len(set(labels)) < max(2, len(labels)):
        raise DataError(f"{where}: expected at least two different labels, found {', '.join(labels)}")
    return labels


def require_two(examples: int, name: str, where: str) -> None:
    """A node needs this many examples.

    Raises:
        DataError: they are fewer than two.
    """
    if examples < 2:
        raise DataError(
            f"{where}: node {name!r} has {examples} different examples, expected at least 2: "
            "one to train on and one to test on"
        )
