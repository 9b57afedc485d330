"""The scores of each task by name: which there are, which a table shows, of which less is better."""

from collections.abc import Collection
from dataclasses import dataclass

LOWER_IS_BETTER = frozenset({"loss", "mae", "rmse"})

_OF_TWO_CLASSES = ("f1", "average-precision")


@dataclass(frozen=True)
class Metrics:
    """The scores of one task.

    Attributes:
        names: of all; `f1` and `average-precision` exist where there are two classes.
        shown: the two by which a run is judged.
        title: what these two are together.
        headings: of their columns.
    """

    names: tuple[str, ...]
    shown: tuple[str, str]
    title: str
    headings: tuple[str, str]

    def of(self, classes: Collection[int]) -> tuple[str, ...]:
        """The names that exist where nodes have so many classes."""
        return tuple(name for name in self.names if name not in _OF_TWO_CLASSES or 2 in classes)


_SINGLE_LABEL = Metrics(
    ("accuracy", "macro-f1", "f1", "average-precision", "loss"),
    ("accuracy", "macro-f1"),
    "Accuracy and macro-F1",
    ("acc", "F1"),
)
METRICS = {
    "text-classification": _SINGLE_LABEL,
    "image-classification": _SINGLE_LABEL,
    "token-classification": Metrics(
        ("span-f1", "precision", "recall", "accuracy", "loss"),
        ("accuracy", "span-f1"),
        "Accuracy of words and F1 of spans",
        ("acc", "F1"),
    ),
    "multi-label": Metrics(
        ("micro-f1", "macro-f1", "mean-average-precision", "loss"),
        ("micro-f1", "mean-average-precision"),
        "Micro-F1 and mean average precision",
        ("F1", "mAP"),
    ),
    "regression": Metrics(
        ("mae", "rmse", "r2", "spearman", "loss"),
        ("mae", "spearman"),
        "Mean absolute error and rank correlation",
        ("MAE", "rho"),
    ),
    "news-recommendation": Metrics(
        ("auc", "mrr", "ndcg@5", "ndcg@10", "loss"), ("auc", "ndcg@10"), "AUC and nDCG@10", ("AUC", "nDCG")
    ),
}
"""By the name of the task."""
