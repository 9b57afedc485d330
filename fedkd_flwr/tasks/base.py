"""What training and evaluation need of a task."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from torch import Tensor

from fedkd_flwr.config.groups import ModelConfig
from fedkd_flwr.tasks.label_priors import Link

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from transformers import BaseImageProcessor, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Readers:
    """What reads examples for models.

    Attributes:
        student: a tokenizer, or an image processor; exported models carry it.
        teacher: a tokenizer of the teacher's own; None: the teacher reads the same tokens.
    """

    student: Any
    teacher: Any = None


class Scores(Protocol):
    """Metrics of one model, summed up over batches.

    The held-out rows alone decide which metrics there are, whatever the model says of them: so all models of a node
    have the same ones, and means over nodes are over the same nodes.
    """

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Take in the outputs of a batch."""

    def compute(self) -> dict[str, float]:
        """Finite scores of everything taken in, by name, without those that are undefined of such rows."""


class Task(Protocol):
    """A task on examples that are encoded once, kept as Arrow tables, and then batched in any order."""

    labels: tuple[str, ...]

    @classmethod
    def build(cls, readers: Readers, labels: tuple[str, ...], model: ModelConfig) -> Self:
        """The task with these readers and labels; of `model` it reads lengths."""

    @property
    def link(self) -> Link | None:
        """What makes probabilities of its labels of logits; None: what it predicts has no frequencies to adjust to."""

    @property
    def processor(self) -> "PreTrainedTokenizerBase | BaseImageProcessor":
        """What makes a model's inputs; exported models carry it."""

    @property
    def teacher_processor(self) -> "PreTrainedTokenizerBase | None":
        """A tokenizer of the teacher's own, where this reads other tokens than the student."""

    @property
    def encoding(self) -> str:
        """Identifies how `encode` works: where it is the same, so is what `encode` returns."""

    def encode(self, dataset: "Dataset") -> "pa.Table":
        """Examples ready to be batched, a row each; one chunk a column."""

    def made_up(self) -> "pa.Table":
        """Two examples of nobody, as `encode` returns them, to try models on."""

    def batches(
        self, examples: "pa.Table", batch_size: int, order: Sequence[int] | None = None
    ) -> Iterator[dict[str, Tensor]]:
        """Batches of the examples at the indices `order`: keyword arguments of a model, and `labels`.

        What only a teacher with a tokenizer of its own reads is called `teacher.NAME`.
        """

    def task_loss(self, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """Loss against the gold labels, mean over the batch, a scalar.

        `weights` are of its classes, [classes]; None: all alike.
        """

    def divergence(self, target_logits: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """How far `logits` are from `target_logits` where there are labels, mean over the batch, a scalar."""

    def scores(self) -> Scores:
        """Fresh scores."""
