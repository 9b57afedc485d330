"""How frequent labels are, and what that does to logits.

A node with its own label frequencies trains a shared head as if its labels were as frequent as the whole federation's
(logit adjustment: Menon et al., ICLR 2021; in federated learning: Zhang et al., FedLC, ICML 2022), and uses it
with its own.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import pyarrow as pa

Link = Literal["softmax", "sigmoid"]
"""What makes probabilities of a task's logits."""


def label_counts(labels: "pa.ChunkedArray", classes: int) -> tuple[int, ...]:
    """Of how many examples, or words, each label is.

    Args:
        labels: of each example its class index, or a list of them; negative ones say that there is none.
        classes: how many labels there are.
    """
    import pyarrow as pa

    indices = labels.combine_chunks()
    if not pa.types.is_integer(indices.type):
        indices = indices.flatten()
    found = np.from_dlpack(indices)
    return tuple(np.bincount(found[found >= 0], minlength=classes).tolist())


def shares(counts: Sequence[int], examples: int) -> tuple[float, ...]:
    """The shares of examples that have each label, between 0 and 1 and never either (rule of succession)."""
    return tuple((count + 1) / (examples + 2) for count in counts)


def mean_shares(nodes: Sequence[tuple[float, Sequence[float]]]) -> tuple[float, ...]:
    """The mean of the shares of nodes, each with its weight."""
    total = sum(weight for weight, _ in nodes)
    columns = zip(*(found for _, found in nodes), strict=True)
    return tuple(
        sum(weight * share for (weight, _), share in zip(nodes, column, strict=True)) / total for column in columns
    )


def adjustment(own: Sequence[float], all_nodes: Sequence[float], link: Link) -> Tensor:
    """What to add to logits that hold for the shares `all_nodes` so that they hold for `own`, float32 [classes]."""
    return (_log_prior(own, link) - _log_prior(all_nodes, link)).float()


def _log_prior(found: Sequence[float], link: Link) -> Tensor:
    share = torch.tensor(found, dtype=torch.float64)
    return share.log() if link == "softmax" else share.logit()
