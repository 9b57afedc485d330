"""The tasks by the value of run-config key `task`: what each says about itself. Importing this imports none of them."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from fedkd_flwr.runtime.registry import Registry, named_by

Inputs = Literal["texts", "words", "images", "news"]
"""Kinds of examples: whole texts, texts of tagged words, images, offered news."""

LOWER_IS_BETTER = frozenset({"loss", "mae", "rmse"})
"""Scores of which less is better."""

OF_TEXTS = frozenset({"data.text-column", "data.label-column", "data.labels"})
"""Run-config keys that every task on texts or words reads."""

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


@dataclass(frozen=True)
class TaskSpec:
    """A task as the rest of the program sees it.

    Attributes:
        place: "module:class" of the `Task` itself, imported when a run builds it.
        inputs: kind of its examples, which decides on the data, the tokenizers and the body of the model.
        labels: of an example: one class, several classes, a number, a tag for each word, or none that anybody names.
        metrics: its scores.
        keys: run-config keys that it reads and other tasks may not.
        partitions: ways to share data out by label that it can be used with: "dirichlet", "shard".
        adjusts: its logits can be adjusted to how frequent labels are at a node.
        linear_head: its head is a linear layer, which `train.linear-probe` can fit.
        pooling: head of a text model; None: run-config key `model.pooling` says it.
        problem_type: of the model's config in `transformers`; None: it is left out.
        auto_class: class of `transformers` that reads an exported model.
        pipeline: task of an exported model on the Hugging Face hub; None: there is none for it.
    """

    place: str
    inputs: Inputs
    labels: Literal["one", "several", "number", "tags", "none"]
    metrics: Metrics
    keys: frozenset[str] = frozenset()
    partitions: frozenset[str] = frozenset()
    adjusts: bool = False
    linear_head: bool = True
    pooling: Literal["none", "news"] | None = None
    problem_type: str | None = None
    auto_class: str = "AutoModelForSequenceClassification"
    pipeline: str | None = None

    @property
    def has_classes(self) -> bool:
        """Labels are classes, so that they can be counted and weighed."""
        return self.labels in ("one", "several", "tags")

    def build(self, *arguments: Any) -> Any:
        """The task itself, see `Task.build` for the arguments."""
        return named_by(self.place).build(*arguments)


_ONE_LABEL = Metrics(
    names=("accuracy", "macro-f1", "f1", "average-precision", "loss"),
    shown=("accuracy", "macro-f1"),
    title="Accuracy and macro-F1",
    headings=("acc", "F1"),
)
_WHOLE_TEXTS = OF_TEXTS | {"data.text-pair-column", "model.pooling"}

TASKS = Registry(
    "task",
    {
        "text-classification": TaskSpec(
            place="fedkd_flwr.tasks.text_classification:TextClassification",
            inputs="texts",
            labels="one",
            metrics=_ONE_LABEL,
            keys=_WHOLE_TEXTS | {"data.skip-unlabelled"},
            partitions=frozenset({"dirichlet", "shard"}),
            adjusts=True,
            pipeline="text-classification",
        ),
        "token-classification": TaskSpec(
            place="fedkd_flwr.tasks.token_classification:TokenClassification",
            inputs="words",
            labels="tags",
            metrics=Metrics(
                names=("span-f1", "precision", "recall", "accuracy", "loss"),
                shown=("accuracy", "span-f1"),
                title="Accuracy of words and F1 of spans",
                headings=("acc", "F1"),
            ),
            keys=OF_TEXTS,
            pooling="none",
            auto_class="AutoModelForTokenClassification",
            pipeline="token-classification",
        ),
        "image-classification": TaskSpec(
            place="fedkd_flwr.tasks.image_classification:ImageClassification",
            inputs="images",
            labels="one",
            metrics=_ONE_LABEL,
            keys=frozenset({"data.labels"}),
            partitions=frozenset({"dirichlet", "shard"}),
            adjusts=True,
            auto_class="AutoModelForImageClassification",
            pipeline="image-classification",
        ),
        "multi-label": TaskSpec(
            place="fedkd_flwr.tasks.multi_label:MultiLabel",
            inputs="texts",
            labels="several",
            metrics=Metrics(
                names=("micro-f1", "macro-f1", "mean-average-precision", "loss"),
                shown=("micro-f1", "mean-average-precision"),
                title="Micro-F1 and mean average precision",
                headings=("F1", "mAP"),
            ),
            keys=_WHOLE_TEXTS | {"data.label-separator"},
            adjusts=True,
            problem_type="multi_label_classification",
            pipeline="text-classification",
        ),
        "regression": TaskSpec(
            place="fedkd_flwr.tasks.regression:Regression",
            inputs="texts",
            labels="number",
            metrics=Metrics(
                names=("mae", "rmse", "r2", "spearman", "loss"),
                shown=("mae", "spearman"),
                title="Mean absolute error and rank correlation",
                headings=("MAE", "rho"),
            ),
            keys=_WHOLE_TEXTS | {"data.skip-unlabelled"},
            partitions=frozenset({"shard"}),
            problem_type="regression",
            pipeline="text-classification",
        ),
        "news-recommendation": TaskSpec(
            place="fedkd_flwr.tasks.news_recommendation:NewsRecommendation",
            inputs="news",
            labels="none",
            metrics=Metrics(
                names=("auc", "mrr", "ndcg@5", "ndcg@10", "loss"),
                shown=("auc", "ndcg@10"),
                title="AUC and nDCG@10",
                headings=("AUC", "nDCG"),
            ),
            keys=frozenset({"model.max-history"}),
            linear_head=False,
            pooling="news",
            auto_class="AutoModel",
        ),
    },
)
"""By name."""
