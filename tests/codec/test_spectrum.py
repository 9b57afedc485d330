import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fedkd_flwr.codec import CodecError, factorize
from fedkd_flwr.codec.spectrum import factors_at, resolved, spectra

seeds = st.integers(0, 2**32 - 1)
sides = st.integers(1, 40)
energies = st.one_of(st.floats(0.01, 0.999), st.sampled_from([0.95, 0.98, 0.9999, 1 - 1e-6, 1 - 1e-9]))


def with_spectrum(m: int, n: int, decay: float, seed: int) -> Tensor:
    """[m, n] float64, singular values falling from 1 to about 10^-decay."""
    generator = torch.Generator().manual_seed(seed)
    k = min(m, n)
    left = torch.linalg.qr(torch.randn(m, k, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(n, k, generator=generator, dtype=torch.float64)).Q
    sigma = torch.diag(torch.logspace(0, -decay, k, dtype=torch.float64))
    matrix: Tensor = left @ sigma @ right.T
    return matrix


def energy_shares(matrix: Tensor) -> NDArray[np.float64]:
    energy = np.linalg.svd(matrix.double().numpy(), compute_uv=False) ** 2
    return np.asarray(np.cumsum(energy) / energy.sum())


@settings(max_examples=200, deadline=None)
@given(m=sides, n=sides, decay=st.floats(0, 5), energy=energies, seed=seeds)
@example(m=21, n=21, decay=5.0, energy=0.9999, seed=0).via("a share 1e-11 above the energy")
def test_rank_is_the_minimal_rank_of_the_svd(m: int, n: int, decay: float, energy: float, seed: int) -> None:
    matrix = with_spectrum(m, n, decay, seed).float()
    shares = energy_shares(matrix)
    expected = min(int((shares <= energy).sum()) + 1, min(m, n))
    rank = factorize(matrix, energy).rank
    if np.abs(shares - energy).min() > 1e-13:
        assert rank == expected
    else:
        assert abs(rank - expected) <= 1


@pytest.mark.parametrize("n", [384, 768])
def test_rank_is_exact_even_next_to_the_threshold(n: int) -> None:
    """Energies that float32 cannot tell from the share of a rank."""
    matrix = with_spectrum(n, n, 1.0, 0).float()
    shares = energy_shares(matrix)
    for k in (n // 10, n // 3):
        for distance in (1e-6, 1e-8, 1e-10):
            assert factorize(matrix, shares[k - 1] - distance).rank == k
            assert factorize(matrix, shares[k - 1] + distance).rank == k + 1


@settings(max_examples=100, deadline=None)
@given(m=sides, n=sides, decay=st.floats(0, 4), energy=energies, seed=seeds)
def test_error_is_the_dropped_energy(m: int, n: int, decay: float, energy: float, seed: int) -> None:
    matrix = with_spectrum(m, n, decay, seed)
    factors = factorize(matrix, energy)
    error = (matrix - factors.left @ factors.right).square().sum() / matrix.square().sum()
    resolution = 1e-13 if energy > 1 - 1e-8 else 1e-6
    assert float(error) == pytest.approx(1 - factors.energy, rel=1e-6, abs=resolution)
    assert factors.energy > energy
    assert factors.energy == pytest.approx(energy_shares(matrix)[factors.rank - 1], abs=resolution)


def test_both_factors_carry_the_root_of_sigma() -> None:
    matrix = with_spectrum(30, 20, 2.0, 1)
    factors = factorize(matrix, 0.999)
    roots = torch.linalg.svdvals(matrix)[: factors.rank].sqrt()
    torch.testing.assert_close(factors.left.norm(dim=0), roots, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(factors.right.norm(dim=1), roots, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1.0, 1e30])
def test_magnitude_does_not_matter(scale: float) -> None:
    matrix = with_spectrum(24, 36, 2.0, 2)
    factors = factorize((matrix * scale).float(), 0.95)
    assert factors.rank == factorize(matrix, 0.95).rank
    product = factors.left.double() @ factors.right.double() / scale
    assert float((product - matrix).square().sum() / matrix.square().sum()) < 0.05 + 1e-4


def test_float64_beyond_float32_is_factorised_in_float64() -> None:
    matrix = with_spectrum(8, 6, 2.0, 3)
    for scale in (1e-200, 1e200):
        factors = factorize(matrix * scale, 0.9999)
        assert factors.left.dtype == torch.float64
        assert float((factors.left @ factors.right / scale - matrix).norm() / matrix.norm()) <= 1e-2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_short_floats_give_float32_factors(dtype: torch.dtype) -> None:
    factors = factorize(with_spectrum(9, 7, 1.0, 4).to(dtype))
    assert factors.left.dtype == factors.right.dtype == torch.float32


def test_energy_one_keeps_all_even_of_a_singular_matrix() -> None:
    matrix = torch.outer(torch.arange(1.0, 6), torch.arange(1.0, 8))
    factors = factorize(matrix, 1.0)
    assert factors.rank == 5
    torch.testing.assert_close(factors.left @ factors.right, matrix)
    diagonal = torch.diag(torch.tensor([1.0, 0.0, 0.0]))
    full = factorize(diagonal, 1.0)
    torch.testing.assert_close(full.left @ full.right, diagonal)


@pytest.mark.parametrize("shape", [(3, 4), (0, 4), (3, 0), (0, 0)])
def test_zero_or_empty_has_rank_zero(shape: tuple[int, int]) -> None:
    factors = factorize(torch.zeros(shape))
    assert (factors.rank, factors.energy) == (0, 1.0)
    assert torch.equal(factors.left @ factors.right, torch.zeros(shape))


@settings(max_examples=30, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), max_size=40),
    energy=st.sampled_from([0.9, 1 - 1e-5, 1 - 1e-8]),
    seed=seeds,
)
def test_batch_equals_one_by_one(shapes: list[tuple[int, int]], energy: float, seed: int) -> None:
    """Also where float32 can tell the rank of some and not of others."""
    matrices = [with_spectrum(m, n, 1.5 + i % 2, seed + i) for i, (m, n) in enumerate(shapes)]
    together = factors_at([(spectrum, spectrum.rank(energy)) for spectrum in resolved(spectra(matrices), energy)])
    for matrix, batched in zip(matrices, together, strict=True):
        single = factorize(matrix, energy)
        assert batched.rank == single.rank
        assert batched.energy == pytest.approx(single.energy, abs=1e-6)
        torch.testing.assert_close(batched.left @ batched.right, single.left @ single.right, rtol=1e-4, atol=1e-4)


class ScalarReads(TorchDispatchMode):
    """Counts the numbers that are read one by one, for each of which a GPU is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_no_number_is_read_by_itself() -> None:
    matrices = [with_spectrum(12, 9, 1.5, seed).float() for seed in range(20)]
    with ScalarReads() as reads:
        float(matrices[0].sum())
        assert reads.count == 1
        factors_at([(spectrum, spectrum.rank(0.9)) for spectrum in spectra(matrices)])
    assert reads.count == 1


def test_factors_of_a_growing_rank_are_those_of_it_at_once() -> None:
    matrix = with_spectrum(40, 30, 2.0, 0).float()
    grown, once = spectra([matrix, matrix])
    for rank in (0, 3, 10, 4, 30):
        factors = factors_at([(grown, rank)])[0]
        assert factors.rank == rank
        error = float((matrix - factors.left @ factors.right).square().sum() / matrix.square().sum())
        assert error == pytest.approx(1 - factors.energy, abs=1e-5)
    in_steps, at_once = factors_at([(grown, 30), (once, 30)])
    torch.testing.assert_close(in_steps.left, at_once.left)


def test_autocast_and_gradients_leave_no_trace() -> None:
    matrix = with_spectrum(64, 48, 2.0, 5).float()
    plain = factorize(matrix)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = factorize(matrix.requires_grad_())
    assert torch.equal(plain.left, cast.left) and torch.equal(plain.right, cast.right)
    assert not cast.left.requires_grad


@pytest.mark.parametrize(
    ("matrix", "energy", "message"),
    [
        (torch.zeros(3), 0.9, "matrix"),
        (torch.zeros(3, 3, dtype=torch.int64), 0.9, "int64"),
        (torch.full((2, 2), float("nan")), 0.9, "finite"),
        (torch.full((2, 2), float("inf")), 0.9, "finite"),
        (torch.eye(2), 0.0, "energy"),
        (torch.eye(2), 1.01, "energy"),
        (torch.eye(2), float("nan"), "energy"),
    ],
)
def test_what_cannot_be_factorised_is_refused(matrix: Tensor, energy: float, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        factorize(matrix, energy)
