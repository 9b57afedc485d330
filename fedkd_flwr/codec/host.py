"""Numbers that a device has found, for decisions on the host."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fedkd_flwr.codec.costs import Floats


def on_host(tensors: Sequence[Tensor]) -> list[Floats]:
    """Each of some real tensors as float64 [numel]; in one copy, so that a GPU is waited for once."""
    if not tensors:
        return []
    flat = torch.cat([tensor.reshape(-1).to(tensors[0].device, torch.float64) for tensor in tensors]).cpu().numpy()
    return np.split(flat, np.cumsum([tensor.numel() for tensor in tensors])[:-1])
