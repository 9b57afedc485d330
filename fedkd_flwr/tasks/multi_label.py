"""Any number of labels per text: each is a decision of its own."""

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from fedkd_flwr.tasks.label_priors import Link
from fedkd_flwr.tasks.labelled_texts import LabelledTexts
from fedkd_flwr.tasks.numerics import finite, full

if TYPE_CHECKING:
    import pyarrow as pa


class MultiLabel(LabelledTexts):
    """Binary cross-entropy and KL divergence of Bernoullis, F1 and mean average precision."""

    kind = "multi-label"
    two_labels = ([0], [0, 1])
    link: Link | None = "sigmoid"

    def targets(self, label: "pa.Array") -> Tensor:
        """1.0 where an example has a class, float32 [examples, classes], of lists of class indices."""
        ends = np.from_dlpack(label.offsets)
        rows = np.repeat(np.arange(len(label)), np.diff(ends))
        found = torch.zeros(len(label), len(self.labels))
        found[rows, np.from_dlpack(label.flatten()).copy()] = 1.0
        return found

    def task_loss(self, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """Binary cross-entropy, mean over batch and classes.

        Args:
            logits: [batch, classes].
            labels: 0.0 or 1.0 [batch, classes].
            weights: of having each class, against 1 of not having it, [classes]; None: all alike.

        Returns:
            A scalar of at least float32.
        """
        logits = full(logits)
        weights = None if weights is None else weights.to(logits.dtype)
        return nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), pos_weight=weights)

    def divergence(self, target_logits: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """KL(Bernoulli(sigmoid(target)) || Bernoulli(sigmoid(logits))), mean over batch and classes.

        Args:
            target_logits: [batch, classes]; a gradient flows into them unless they are detached.
            logits: [batch, classes].
            labels: do not matter.

        Returns:
            A scalar of at least float32.
        """
        target, output = full(target_logits), full(logits)
        log = nn.functional.logsigmoid
        yes, no = target.sigmoid(), (-target).sigmoid()
        return (yes * (log(target) - log(output)) + no * (log(-target) - log(-output))).mean()

    def scores(self) -> "MultiLabelScores":
        """Fresh scores."""
        return MultiLabelScores(len(self.labels))


class MultiLabelScores:
    """Micro and macro F1 of the classes at a probability of 0.5, mean average precision, mean binary cross-entropy.

    A class that no example has counts 0 in macro F1 where it is predicted, and not at all where it is not; in mean
    average precision it does not count. Where no example has any class, the loss alone is defined.
    """

    def __init__(self, classes: int) -> None:
        from torchmetrics import MeanMetric
        from torchmetrics.classification import MultilabelAveragePrecision, MultilabelF1Score, MultilabelStatScores

        self._micro = MultilabelF1Score(classes, average="micro", validate_args=False)
        self._macro = MultilabelF1Score(classes, average="none", validate_args=False)
        self._counts = MultilabelStatScores(classes, average="none", validate_args=False)
        self._ranking = MultilabelAveragePrecision(classes, average="none", validate_args=False)
        self._loss = MeanMetric(nan_strategy="disable")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Take in a batch: logits [batch, classes], labels 0.0 or 1.0 [batch, classes], on any device."""
        logits, labels = full(logits.detach()).cpu(), labels.cpu()
        decisions, gold = (logits > 0).long(), labels.long()
        for metric in (self._micro, self._macro, self._counts):
            metric.update(decisions, gold)
        self._ranking.update(logits.sigmoid(), gold)
        self._loss.update(
            nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
        )

    def compute(self) -> dict[str, float]:
        """Scores of all examples so far, of which there is at least one.

        Returns:
            `loss` and, where an example has a class, `micro-f1`, `macro-f1` and `mean-average-precision`.

        Raises:
            RunError: the loss is not finite.
        """
        loss = finite(float(self._loss.compute()))
        true, false, _, missed, support = self._counts.compute().unbind(-1)
        if not support.any():
            return {"loss": loss}
        with warnings.catch_warnings(action="ignore"):  # of classes that no example has
            ranking = self._ranking.compute()
        return {
            "micro-f1": float(self._micro.compute()),
            "macro-f1": float(self._macro.compute()[(true + false + missed) > 0].mean()),
            "mean-average-precision": float(ranking[support > 0].mean()),
            "loss": loss,
        }
