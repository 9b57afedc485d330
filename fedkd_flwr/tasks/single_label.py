"""What tasks with one label per example have in common: losses and scores."""

import torch
from torch import Tensor, nn

from fedkd_flwr.tasks.label_priors import Link
from fedkd_flwr.tasks.metrics import Decisions, average_precision
from fedkd_flwr.tasks.numerics import finite, full, softmax_divergence


class SingleLabel:
    """Cross-entropy, KL divergence, accuracy and macro F1 of single labels."""

    labels: tuple[str, ...]
    link: Link | None = "softmax"

    def task_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy, mean over the batch.

        Args:
            logits: [batch, classes].
            labels: int64 [batch].

        Returns:
            A scalar of at least float32.
        """
        return nn.functional.cross_entropy(full(logits), labels)

    def divergence(self, target_logits: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """KL(softmax(target) || softmax(logits)) at temperature 1, mean over the batch.

        Args:
            target_logits: [batch, classes]; a gradient flows into them unless they are detached.
            logits: [batch, classes].
            labels: do not matter.

        Returns:
            A scalar of at least float32.
        """
        return softmax_divergence(target_logits, logits)

    def scores(self) -> "ClassificationScores":
        """Fresh scores."""
        return ClassificationScores(len(self.labels))


class ClassificationScores:
    """Accuracy, macro F1 and mean cross-entropy; of two classes also F1 and average precision of the second.

    Macro F1 is the mean F1 of the classes that are among the gold labels or the predictions: a class that is in
    neither does not count, one that is only predicted counts 0.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._decisions = Decisions(classes)
        self._ranked: list[tuple[Tensor, Tensor]] = []
        self._losses: list[Tensor] = []

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Take in a batch: logits [batch, classes], labels int64 [batch], on any device."""
        logits, labels = full(logits.detach()).cpu(), labels.cpu()
        decided, there = (nn.functional.one_hot(x, self._classes).bool() for x in (logits.argmax(dim=-1), labels))
        self._decisions.update(decided, there)
        if self._classes == 2:
            self._ranked.append((logits.softmax(dim=-1)[:, 1], labels == 1))
        self._losses.append(nn.functional.cross_entropy(logits, labels, reduction="none"))

    def compute(self) -> dict[str, float]:
        """Scores of all examples so far, of which there is at least one.

        Returns:
            `accuracy`, `macro-f1` and `loss`; of two classes also `f1` and `average-precision`, 0 where no
            example is of the second.

        Raises:
            RunError: the loss is not finite.
        """
        loss = finite(float(torch.cat(self._losses).double().mean()))
        scores = {"accuracy": self._decisions.recall, "macro-f1": self._decisions.macro_f1}
        if self._classes == 2:
            probabilities, positive = map(torch.cat, zip(*self._ranked, strict=True))
            scores |= {
                "f1": float(self._decisions.f1[1]),
                "average-precision": average_precision(probabilities, positive),
            }
        return scores | {"loss": loss}
