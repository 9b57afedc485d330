"""Named tensors: digest, sum and size."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and float32 values, in the order of the names."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu", torch.float32).contiguous()
        sha.update(f"{name}{tuple(tensor.shape)}".encode())
        sha.update(tensor.numpy().data)
    return sha.hexdigest()


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Name -> shape."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def snapshot(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, out of any graph."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def dense_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of sending all values as float32."""
    return sum(4 * tensor.numel() for tensor in tensors.values())
