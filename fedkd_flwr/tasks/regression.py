"""A number per text, learnt in units of the half range of all numbers."""

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from fedkd_flwr.tasks.label_priors import Link
from fedkd_flwr.tasks.labelled_texts import LabelledTexts
from fedkd_flwr.tasks.numerics import finite, full, scale

if TYPE_CHECKING:
    import pyarrow as pa


class Regression(LabelledTexts):
    """Squared error and squared distance of scaled numbers; errors in the numbers' own units, R² and rank correlation.

    `labels` are the lowest and the highest number (others may lie outside): a model learns (number - middle) / half
    range, so that ratings and prices alike are of the order of 1. Its exported head predicts the number itself.
    """

    kind = "regression"
    link: Link | None = None

    def targets(self, label: "pa.Array") -> Tensor:
        """The scaled numbers, float32 [examples]."""
        middle, half = scale(self.labels)
        return torch.tensor((np.from_dlpack(label).astype(np.float64) - middle) / half, dtype=torch.float32)

    def task_loss(self, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """Squared error, mean over the batch.

        Args:
            logits: [batch, 1].
            labels: [batch].
            weights: do not matter, there are no classes.

        Returns:
            A scalar of at least float32.
        """
        return nn.functional.mse_loss(full(logits)[:, 0], labels)

    def divergence(self, target_logits: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Squared distance of two outputs, mean over the batch.

        Args:
            target_logits: [batch, 1]; a gradient flows into them unless they are detached.
            logits: [batch, 1].
            labels: do not matter.

        Returns:
            A scalar of at least float32.
        """
        return nn.functional.mse_loss(full(logits), full(target_logits))

    def scores(self) -> "RegressionScores":
        """Fresh scores."""
        return RegressionScores(self.labels)


class RegressionScores:
    """Mean absolute and root mean squared error in the numbers' own units, R², Spearman's rank correlation."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self._scale = scale(labels)
        self._outputs: list[Tensor] = []
        self._labels: list[Tensor] = []

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Take in a batch: logits [batch, 1], scaled numbers [batch], on any device."""
        self._outputs.append(logits.detach()[:, 0].double().cpu())
        self._labels.append(labels.double().cpu())

    def compute(self) -> dict[str, float]:
        """Scores of all examples so far, of which there is at least one.

        Returns:
            `mae`, `rmse` and `loss`, the squared error of scaled numbers; of numbers that are not all alike also `r2`
            and `spearman` (0 where the outputs are all alike: they rank nothing).

        Raises:
            RunError: an output is not finite.
        """
        from torchmetrics.functional.regression import mean_absolute_error, r2_score, spearman_corrcoef

        outputs, labels = torch.cat(self._outputs), torch.cat(self._labels)
        loss = finite(float(nn.functional.mse_loss(outputs, labels)))
        _, half = self._scale
        scores = {"mae": half * float(mean_absolute_error(outputs, labels)), "rmse": half * math.sqrt(loss)}
        if labels.min() < labels.max():
            ranked = bool(outputs.min() < outputs.max())
            scores |= {
                "r2": float(r2_score(outputs, labels)),
                "spearman": float(spearman_corrcoef(outputs, labels)) if ranked else 0.0,
            }
        return scores | {"loss": loss}
