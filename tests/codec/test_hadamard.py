import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedkd_flwr.codec.hadamard import BLOCK, block_of, group_sums, groups_of, rotate, rotate_back, spread

lengths = st.one_of(st.integers(1, 300), st.integers(BLOCK - 2, 3 * BLOCK + 2))
seeds = st.integers(0, 2**16 - 1)


@given(numel=lengths, seed=seeds)
def test_rotation_keeps_norms_and_is_taken_back(numel: int, seed: int) -> None:
    flat = torch.randn(numel, generator=torch.Generator().manual_seed(seed))
    before = flat.clone()
    rotated = rotate(flat, seed)
    assert torch.equal(flat, before)
    assert float(rotated.norm()) == pytest.approx(float(flat.norm()), rel=1e-5)
    torch.testing.assert_close(rotate_back(rotated, seed), flat, rtol=0, atol=1e-5)
    torch.testing.assert_close(rotate(rotate_back(flat, seed), seed), flat, rtol=0, atol=1e-5)


@pytest.mark.parametrize("block", [1, 2, 8, 64])
def test_a_block_is_multiplied_by_a_hadamard_matrix_with_signs(block: int) -> None:
    matrix = torch.stack([rotate(unit, 5) for unit in torch.eye(block)], dim=1) * block**0.5
    hadamard = np.ones((1, 1))
    while len(hadamard) < block:
        hadamard = np.kron([[1, 1], [1, -1]], hadamard)
    signs = np.sign(matrix.numpy()[0])
    np.testing.assert_allclose(matrix.numpy(), hadamard * signs, atol=1e-5)


def test_signs_are_random_and_of_the_seed_alone() -> None:
    flat = torch.ones(BLOCK)
    first, again, other = (rotate(flat, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert abs(float(first @ other)) < 5 * BLOCK**0.5


def test_one_large_number_becomes_gaussian() -> None:
    flat = 0.01 * torch.randn(3 * BLOCK + 5, generator=torch.Generator().manual_seed(0))
    flat[7::BLOCK] = 1.0
    for part in (rotate(flat, 0)[: 2 * BLOCK], rotate(flat, 0)[-BLOCK:]):
        assert float(part.abs().amax() / part.square().mean().sqrt()) < 6


@given(numel=lengths)
def test_every_number_belongs_to_one_group(numel: int) -> None:
    counts = group_sums(torch.ones(numel))
    assert len(counts) == groups_of(numel) == -(-numel // block_of(numel))
    assert counts.sum() == numel and (counts > 0).all()
    names = spread(torch.arange(float(len(counts))), numel)
    assert torch.equal(names.long().bincount(minlength=len(counts)).float(), counts)
    weights = torch.rand(numel)
    expected = torch.zeros(len(counts)).index_add_(0, names.long(), weights)
    torch.testing.assert_close(group_sums(weights), expected, rtol=1e-3, atol=1e-3)
