"""Encode and decode: seconds, bytes and error, against the SVD that the published code calls.

    python -m benchmarks.record_update update.safetensors
    python -m benchmarks.codec update.safetensors

One thread; seconds are the processor's, the least of several repeats: other programs on the machine disturb them
little. One table for each update: the last recorded one, and students of 4 layers, 768 wide, and 2 layers, 1024 wide,
with singular values like k^-0.7 (rank 168 of 768 holds 95 %). `times` is numpy's time over this
one's, `goal` the least that it should be; `/ fp32` and `/ fp64` are the decoding's time over that of the products of
its factors in these.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from fedkd_flwr.codec import Budget, EncodedUpdate, UpdateCodec
from fedkd_flwr.codec.spectrum import Factors
from fedkd_flwr.codec.tensors import Dense, EncodedTensor, Factored
from fedkd_flwr.runtime.device import set_threads

ENERGY = 0.95
Update = dict[str, Tensor]
Result = TypeVar("Result")


def recorded_rounds(path: Path) -> list[Update]:
    """The updates of a file of benchmarks.record_update, in their order; two or more."""
    tensors = load_file(path)
    count = 1 + max(int(name.partition("/")[0]) for name in tensors)
    if count < 2:
        raise SystemExit(
            f"{path} holds one round, two are needed: python -m benchmarks.record_update {path} --rounds 2"
        )
    return [{n.partition("/")[2]: t for n, t in tensors.items() if n.startswith(f"{i}/")} for i in range(count)]


def student(layers: int, width: int) -> Update:
    """Updates of the matrices of a transformer encoder."""
    shapes = {"query": (1, 1), "key": (1, 1), "value": (1, 1), "output": (1, 1), "in": (4, 1), "out": (1, 4)}
    generator = torch.Generator().manual_seed(0)
    update = {}
    for layer in range(layers):
        for name, (out, rest) in shapes.items():
            m, n = out * width, rest * width
            left = torch.linalg.qr(torch.randn(m, width, generator=generator)).Q
            right = torch.linalg.qr(torch.randn(n, width, generator=generator)).Q
            update[f"{layer}.{name}"] = 1e-3 * left * torch.arange(1.0, width + 1) ** -0.7 @ right.T
    return update


def published(update: Update, svd: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]) -> EncodedUpdate:
    """One full SVD a matrix, then the paper's rule."""
    records: dict[str, EncodedTensor] = {}
    for name, tensor in update.items():
        records[name] = Dense.of(tensor)
        if tensor.ndim == 2 and tensor.any():
            u, s, vt = svd(tensor)
            shares = (s.double() ** 2).cumsum(0) / (s.double() ** 2).sum()
            rank = min(int((shares <= ENERGY).sum()) + 1, len(s))
            if rank * sum(tensor.shape) < tensor.numel():
                root = s[:rank].sqrt()
                factors = Factors(u[:, :rank] * root, root[:, None] * vt[:rank], float(shares[rank - 1]))
                records[name] = Factored.of(tuple(tensor.shape), factors)
    return EncodedUpdate.of(records)


def numpy_svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    u, s, vt = np.linalg.svd(matrix.numpy(), full_matrices=False)
    return torch.from_numpy(u), torch.from_numpy(s), torch.from_numpy(vt)


def torch_svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    return u, s, vt


def table(title: str, update: Update, repeats: int) -> None:
    dense = 4 * sum(tensor.numel() for tensor in update.values())
    total = sum(float(tensor.double().square().sum()) for tensor in update.values())
    rows: list[tuple[str, str, Callable[[], EncodedUpdate]]] = [
        ("numpy SVD, fp32 factors", "", lambda: published(update, numpy_svd)),
        ("torch SVD, fp32 factors", "", lambda: published(update, torch_svd)),
        ("ours, energy 0.95, fp32", "8", lambda: UpdateCodec(ENERGY).encode(update)),
        ("ours, energy 0.95, 6 bits", "8", lambda: UpdateCodec(ENERGY, bits=6).encode(update)),
    ]
    for ratio in (8, 32, 128, 384):
        codec = UpdateCodec(allocation=Budget(dense // ratio))
        rows.append((f"ours, budget {ratio}x", "15" if ratio >= 128 else "", partial(codec.encode, update)))
    print(f"\n{title}: {len(update)} tensors, {dense / 1e6:.1f} MB dense")
    heads = f"{'encode s':>9}{'times':>7}{'goal':>7}{'decode s':>9}{'/ fp32':>7}{'/ fp64':>7}"
    print(f"{'':32}{heads}{'bytes':>11}{'ratio':>7}{'error':>8}")
    reference = 0.0
    for label, goal, encode in rows:
        seconds, encoded = fastest(encode, 1 if "numpy" in label else repeats)
        reference = reference or seconds
        decode_seconds, decoded = fastest(encoded.decode, repeats)
        factors = [record.factors() for record in encoded._tensors.values() if isinstance(record, Factored)]
        wide = [(left.double(), right.double()) for left, right in factors]
        floors = [max(1e-9, fastest(partial(multiplied, sides), repeats)[0]) for sides in (factors, wide)]
        error = sum(float((decoded[n] - t).double().square().sum()) for n, t in update.items()) / total
        print(
            f"{label:32}{seconds:9.3f}{reference / seconds:7.1f}{goal:>7}{decode_seconds:9.3f}"
            f"{decode_seconds / floors[0]:7.1f}{decode_seconds / floors[1]:7.1f}"
            f"{encoded.nbytes:11,}{dense / encoded.nbytes:7.1f}{error:8.4f}"
        )


def multiplied(factors: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    return [left @ right for left, right in factors]


def fastest(run: Callable[[], Result], repeats: int) -> tuple[float, Result]:
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        result = run()
        best = min(best, time.process_time() - start)
    return best, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "recorded", type=Path, nargs="?", help="what benchmarks.record_update wrote, two rounds or more"
    )
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    set_threads(1)
    if arguments.recorded:
        *_, update = recorded_rounds(arguments.recorded)
        table(arguments.recorded.name, update, arguments.repeats)
    for layers, width in ((4, 768), (2, 1024)):
        update = student(layers, width)
        table(f"{layers} layers, {width} wide", update, arguments.repeats)


if __name__ == "__main__":
    main()
