"""A random rotation that makes the numbers of a tensor look Gaussian: Walsh-Hadamard transforms with random signs."""

import numpy as np
import torch
from torch import Tensor

BLOCK = 4096
"""Numbers that are rotated together, at most."""


def block_of(numel: int) -> int:
    """The largest power of two up to BLOCK that fits into `numel` > 0 numbers."""
    return min(BLOCK, 1 << (numel.bit_length() - 1))


def groups_of(numel: int) -> int:
    """Whole blocks, and one more where numbers are left over."""
    return -(-numel // block_of(numel))


def group_sums(rotated: Tensor) -> Tensor:
    """Sums [groups] over the numbers of each block; what is in the last block is in no other."""
    block = block_of(len(rotated))
    whole = len(rotated) // block * block
    if whole == len(rotated):
        return rotated.view(block, -1).sum(dim=0)
    rest = rotated[:whole].clone()
    rest[len(rotated) - block :] = 0
    return torch.cat([rest.view(block, -1).sum(dim=0), rotated[-block:].sum()[None]])


def spread(groups: Tensor, numel: int) -> Tensor:
    """Repeat a number a group [groups] for each number of the group, [numel]."""
    block = block_of(numel)
    whole = groups[: numel // block].expand(block, -1).reshape(-1)
    if len(whole) == numel:
        return whole
    numbers = groups[-1].expand(numel).clone()
    numbers[: numel - block] = whole[: numel - block]
    return numbers


def rotate(flat: Tensor, seed: int) -> Tensor:
    """Rotate float32 [n], n > 0, by signs from `seed` and Walsh-Hadamard transforms (DRIVE, Vargaftik et al. 2021).

    The leading numbers, as many as whole blocks hold, become a matrix [block, n // block] whose columns are rotated;
    then the last block of all numbers is, where that is another: no length needs padding. Only additions in a fixed
    order and powers of two: every machine finds the same bits.
    """
    block, rotated = block_of(len(flat)), flat.clone()
    whole = len(flat) // block * block
    rotated[:whole] = _transformed(_signed(rotated[:whole], block, seed, 0), block)
    if whole < len(flat):
        rotated[-block:] = _transformed(_signed(rotated[-block:], block, seed, 1), block)
    return rotated


def rotate_back(rotated: Tensor, seed: int) -> Tensor:
    """Undo `rotate` with the same seed; float32 [n]."""
    block, flat = block_of(len(rotated)), rotated.clone()
    whole = len(rotated) // block * block
    if whole < len(rotated):
        flat[-block:] = _signed(_transformed(flat[-block:], block), block, seed, 1)
    flat[:whole] = _signed(_transformed(flat[:whole], block), block, seed, 0)
    return flat


def _signed(flat: Tensor, block: int, seed: int, stage: int) -> Tensor:
    """Signs from the raw numbers of PCG64, a stream that numpy keeps."""
    words = np.random.PCG64([seed, stage]).random_raw(-(-block // 64)).astype("<u8")
    bits = np.unpackbits(words.view(np.uint8), count=block)
    signs = torch.from_numpy(1 - 2 * bits.astype(np.float32))
    return (flat.view(block, -1) * signs[:, None]).view(-1)


def _transformed(flat: Tensor, block: int) -> Tensor:
    """Orthonormal Walsh-Hadamard transform of the columns of [block, n / block]; its own inverse."""
    stages = block.bit_length() - 1
    source, target = flat.clone(), torch.empty_like(flat)
    for stage in range(stages):
        pairs, into = (t.view(-1, 2, len(flat) // block << stage) for t in (source, target))
        torch.add(pairs[:, 0], pairs[:, 1], out=into[:, 0])
        torch.sub(pairs[:, 0], pairs[:, 1], out=into[:, 1])
        source, target = target, source
    return source.mul_(2.0 ** (-stages / 2))
