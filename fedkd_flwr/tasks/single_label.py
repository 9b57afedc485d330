"""What tasks with one label per example have in common: losses and scores."""

from torch import Tensor, nn

from fedkd_flwr.tasks.label_priors import Link
from fedkd_flwr.tasks.numerics import finite, full, softmax_divergence, weighted_cross_entropy


class SingleLabel:
    """Cross-entropy, KL divergence, accuracy and macro F1 of single labels."""

    labels: tuple[str, ...]
    link: Link | None = "softmax"

    def task_loss(self, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """Cross-entropy, mean over the batch.

        Args:
            logits: [batch, classes].
            labels: int64 [batch].
            weights: of the classes, [classes]; None: all alike.

        Returns:
            A scalar of at least float32.
        """
        return weighted_cross_entropy(logits, labels, weights)

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
    neither does not count, one that is only predicted counts 0. F1 and average precision are those of finding the
    second class: where no example is of it, there is nothing to find.
    """

    def __init__(self, classes: int) -> None:
        from torchmetrics import MeanMetric, MetricCollection
        from torchmetrics.classification import (
            BinaryAveragePrecision,
            BinaryF1Score,
            MulticlassAccuracy,
            MulticlassF1Score,
        )

        self._decisions = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(classes, average="micro", validate_args=False),
                "macro-f1": MulticlassF1Score(classes, average="macro", validate_args=False),
            }
        )
        self._positive = BinaryF1Score(validate_args=False) if classes == 2 else None
        self._ranking = BinaryAveragePrecision(validate_args=False) if classes == 2 else None
        self._loss = MeanMetric(nan_strategy="disable")
        self._positives = 0

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Take in a batch: logits [batch, classes], labels int64 [batch], on any device."""
        logits, labels = full(logits.detach()).cpu(), labels.cpu()
        self._decisions.update(logits.argmax(dim=-1), labels)
        if self._positive is not None and self._ranking is not None:
            self._positive.update(logits.argmax(dim=-1), labels)
            self._ranking.update(logits.softmax(dim=-1)[:, 1], labels)
            self._positives += int(labels.sum())
        self._loss.update(nn.functional.cross_entropy(logits, labels, reduction="none"))

    def compute(self) -> dict[str, float]:
        """Scores of all examples so far, of which there is at least one.

        Returns:
            `accuracy`, `macro-f1` and `loss`; of two classes also `f1` and `average-precision`, where an example is
            of the second.

        Raises:
            RunError: the loss is not finite.
        """
        loss = finite(float(self._loss.compute()))
        scores = {name: float(value) for name, value in self._decisions.compute().items()}
        if self._positives and self._positive is not None and self._ranking is not None:
            scores |= {"f1": float(self._positive.compute()), "average-precision": float(self._ranking.compute())}
        return scores | {"loss": loss}
