"""Any number of labels per text: each is a decision of its own."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from fedkd_flwr.tasks.label_priors import Link
from fedkd_flwr.tasks.labelled_texts import LabelledTexts
from fedkd_flwr.tasks.metrics import Decisions, average_precision, mean
from fedkd_flwr.tasks.numerics import finite, full

if TYPE_CHECKING:
    import pyarrow as pa


class MultiLabel(LabelledTexts):
    """Binary cross-entropy and KL divergence of Bernoullis, F1 and mean average precision."""

    kind = "multi-label"
    link: Link | None = "sigmoid"

    def targets(self, label: "pa.Array") -> Tensor:
        """1.0 where an example has a class, float32 [examples, classes], of lists of class indices."""
        ends = np.from_dlpack(label.offsets)
        rows = np.repeat(np.arange(len(label)), np.diff(ends))
        found = torch.zeros(len(label), len(self.labels))
        found[rows, np.from_dlpack(label.flatten()).copy()] = 1.0
        return found

    def task_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Binary cross-entropy, mean over batch and classes.

        Args:
            logits: [batch, classes].
            labels: 0.0 or 1.0 [batch, classes].

        Returns:
            A scalar of at least float32.
        """
        logits = full(logits)
        return nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))

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
    average precision it does not count.
    """

    def __init__(self, classes: int) -> None:
        self._decisions = Decisions(classes)
        self._probabilities: list[Tensor] = []
        self._gold: list[Tensor] = []
        self._losses: list[Tensor] = []

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Take in a batch: logits [batch, classes], labels 0.0 or 1.0 [batch, classes], on any device."""
        logits, labels = full(logits.detach()).cpu(), labels.cpu()
        self._decisions.update(logits > 0, labels > 0)
        self._probabilities.append(logits.sigmoid())
        self._gold.append(labels > 0)
        self._losses.append(
            nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
        )

    def compute(self) -> dict[str, float]:
        """Scores of all examples so far, of which there is at least one.

        Returns:
            `micro-f1`, `macro-f1`, `mean-average-precision` (0 where no example has a class) and `loss`.

        Raises:
            RunError: the loss is not finite.
        """
        loss = finite(float(torch.cat(self._losses).double().mean()))
        columns = zip(torch.cat(self._probabilities).T, torch.cat(self._gold).T, strict=True)
        ranking = [average_precision(probabilities, gold) for probabilities, gold in columns if gold.any()]
        return {
            "micro-f1": self._decisions.micro_f1,
            "macro-f1": self._decisions.macro_f1,
            "mean-average-precision": mean(torch.tensor(ranking, dtype=torch.float64)),
            "loss": loss,
        }
