"""What a task says about itself, without any of the libraries that run it."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from fedkd_flwr.runtime.registry import named_by

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


def scale(labels: tuple[str, ...]) -> tuple[float, float]:
    """Middle and half range of the numbers between the lowest and the highest, which are the labels of numbers."""
    low, high = map(float, labels)
    return (low + high) / 2, (high - low) / 2
