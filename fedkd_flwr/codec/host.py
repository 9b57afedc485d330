"""Copies of tensors on the CPU: a GPU is waited for once for many tensors, not for each."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fedkd_flwr.codec.rate_model import Floats
from fedkd_flwr.errors import CodecError


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copy tensors to the CPU; one that is there stays itself."""
    moved = [tensor.to("cpu", non_blocking=tensor.is_cuda) for tensor in tensors]
    for device in {tensor.device for tensor in tensors if tensor.is_cuda}:
        torch.cuda.synchronize(device)
    return moved


def on_host(tensors: Sequence[Tensor]) -> list[Floats]:
    """Copy real tensors to the CPU at once, each as float64 [numel]."""
    if not tensors:
        return []
    flat = torch.cat([tensor.reshape(-1).to(tensors[0].device, torch.float64) for tensor in tensors]).cpu().numpy()
    return np.split(flat, np.cumsum([tensor.numel() for tensor in tensors])[:-1])


def finite_float32(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy named tensors, detached, to the CPU as float32.

    Raises:
        CodecError: names one that is no tensor of real floats, or holds a number that float32 cannot.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise CodecError(f"tensor {name!r} is {tensor.dtype}: only floating-point tensors can be encoded")
    single = to_host([tensor.detach().to(torch.float32) for tensor in tensors.values()])
    for name, tensor in zip(tensors, single, strict=True):
        if tensor.numel() and not torch.isfinite(torch.stack(tensor.aminmax())).all():
            raise CodecError(f"tensor {name!r} holds inf, nan or a number beyond float32")
    return dict(zip(tensors, single, strict=True))
