"""What a GPU has found, on the CPU: it is waited for once for many tensors, not for each."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fedkd_flwr.codec.rate_model import Floats


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Each on the CPU, itself where it is there."""
    moved = [tensor.to("cpu", non_blocking=tensor.is_cuda) for tensor in tensors]
    for device in {tensor.device for tensor in tensors if tensor.is_cuda}:
        torch.cuda.synchronize(device)
    return moved


def on_host(tensors: Sequence[Tensor]) -> list[Floats]:
    """Each of some real tensors as float64 [numel], in one copy."""
    if not tensors:
        return []
    flat = torch.cat([tensor.reshape(-1).to(tensors[0].device, torch.float64) for tensor in tensors]).cpu().numpy()
    return np.split(flat, np.cumsum([tensor.numel() for tensor in tensors])[:-1])
