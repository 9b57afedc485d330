import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_spectrum import energy_shares, with_spectrum

from fedkd_flwr.codec import Budget, EncodedUpdate, UpdateCodec, factorize
from fedkd_flwr.codec.krylov import LeadingSpectrum
from fedkd_flwr.codec.spectrum import Factors, factors_at, resolved


def truncated(matrix: torch.Tensor, energy: float) -> Factors:
    (spectrum,) = resolved([LeadingSpectrum(matrix).until(energy)], energy)
    return factors_at([(spectrum, spectrum.rank(energy))])[0]


@settings(max_examples=40, deadline=None)
@given(
    m=st.integers(1, 150),
    n=st.integers(1, 150),
    decay=st.floats(0, 5),
    energy=st.floats(0.05, 0.999),
    seed=st.integers(0, 2**32 - 1),
)
def test_energy_is_reached_at_nearly_the_smallest_rank(m: int, n: int, decay: float, energy: float, seed: int) -> None:
    matrix = with_spectrum(m, n, decay, seed).float()
    factors = truncated(matrix, energy)
    error = float((matrix - factors.left @ factors.right).square().sum() / matrix.square().sum())
    assert factors.energy > energy
    assert error == pytest.approx(1 - factors.energy, rel=1e-3, abs=2e-6)
    smallest = int((energy_shares(matrix) <= energy - 2e-6).sum()) + 1
    assert smallest <= factors.rank <= 1.1 * smallest + 1


@pytest.mark.parametrize("shape", [(300, 256), (256, 300)])
@pytest.mark.parametrize("decay", [1.0, 2.0, 4.0])
def test_leading_values_are_those_of_the_svd(shape: tuple[int, int], decay: float) -> None:
    matrix = with_spectrum(*shape, decay, 0).float()
    exact = torch.linalg.svdvals(matrix.double()).numpy() ** 2
    for rank in (1, 10, 40):
        spectrum = LeadingSpectrum(matrix).first(rank)
        found = spectrum.values * float(matrix.abs().amax()) ** 2
        assert (found[:rank] <= exact[:rank] * (1 + 1e-5) + 1e-6).all()
        assert float(found[:rank].sum()) >= 0.98 * float(exact[:rank].sum())
        assert spectrum.total == pytest.approx(float(spectrum.matrix.double().norm() / matrix.abs().amax()) ** 2)


def test_growing_in_steps_is_growing_at_once() -> None:
    matrix = with_spectrum(300, 280, 2.0, 1).float()
    grown = LeadingSpectrum(matrix)
    for rank in (5, 20, 60):
        np.testing.assert_allclose(grown.first(rank).values, LeadingSpectrum(matrix).first(rank).values, rtol=1e-5)
    assert len(grown.first(200).values) == 280


def test_exactly_low_rank_and_equal_values() -> None:
    for matrix in (torch.outer(torch.arange(1.0, 301), torch.ones(270)), torch.eye(300, 270)):
        for energy in (0.3, 0.95):
            factors = truncated(matrix, energy)
            assert factors.energy > energy
            assert torch.isfinite(factors.left).all() and torch.isfinite(factors.right).all()


def low_rank(kind: str, rank: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rank)
    left = torch.randn(400, rank, generator=generator)
    if kind == "columns":
        return torch.cat([left, torch.zeros(400, 384 - rank)], dim=1)
    return left @ torch.randn(rank, 384, generator=generator)


@pytest.mark.parametrize("kind", ["product", "columns"])
@pytest.mark.parametrize("rank", [1, 5, 32, 40, 70])
def test_a_low_rank_ends_the_basis(kind: str, rank: int) -> None:
    matrix = low_rank(kind, rank)
    exact = torch.linalg.svdvals(matrix.double()) ** 2
    spectrum = LeadingSpectrum(matrix).first(32)
    torch.testing.assert_close(spectrum.basis.T @ spectrum.basis, torch.eye(spectrum.basis.shape[1]))
    assert spectrum.shares[31] <= float(exact[:32].sum() / exact.sum()) + 1e-5
    assert spectrum.shares[31] >= 0.98 * float(exact[:32].sum() / exact.sum())


@pytest.mark.parametrize("kind", ["product", "columns"])
@pytest.mark.parametrize("rank", [1, 5, 32, 40, 70])
def test_what_is_claimed_of_a_low_rank_is_kept(kind: str, rank: int) -> None:
    matrix = low_rank(kind, rank)
    for energy in (0.9, 0.9999):
        encoded = UpdateCodec(energy).encode({"w": matrix})
        assert energy <= encoded.rows()[0].energy <= kept(encoded, matrix) + 1e-6
        assert encoded.rows()[0].rank <= rank
    budget = UpdateCodec(allocation=Budget(20_000)).encode({"w": matrix})
    assert budget.rows()[0].energy <= kept(budget, matrix) + 1e-6
    assert kept(budget, matrix) >= 0.3


def kept(encoded: EncodedUpdate, matrix: torch.Tensor) -> float:
    distance = encoded.decode()["w"].double() - matrix.double()
    return 1 - float(distance.square().sum() / matrix.double().square().sum())


def large() -> dict[str, torch.Tensor]:
    return {f"{i}": with_spectrum(*shape, 1.5 + i, i).float() for i, shape in enumerate([(300, 256), (256, 320)])}


@pytest.mark.parametrize("energy", [0.8, 0.95, 0.99])
def test_codec_of_large_matrices_keeps_the_energy_with_at_most_2_percent_more_bytes(energy: float) -> None:
    encoded = UpdateCodec(energy).encode(large())
    for name, rank in encoded.ranks.items():
        smallest = factorize(large()[name], energy).rank
        if smallest * sum(large()[name].shape) < large()[name].numel():
            assert smallest <= rank <= 1.02 * smallest + 1
    decoded = encoded.decode()
    for name, tensor in large().items():
        assert float((decoded[name] - tensor).square().sum() / tensor.square().sum()) < 1 - energy


@pytest.mark.parametrize("ratio", [8, 16, 64, 256])
def test_budget_with_values_on_demand_keeps_what_it_keeps_with_all(ratio: int, monkeypatch: pytest.MonkeyPatch) -> None:
    update = large()
    codec = UpdateCodec(allocation=Budget(sum(4 * tensor.numel() for tensor in update.values()) // ratio))
    lost = []
    for threshold in (256, 10_000):
        monkeypatch.setattr("fedkd_flwr.codec.decompositions._LARGE", threshold)
        decoded = codec.encode(update).decode()
        lost.append(sum(float((decoded[name] - tensor).square().sum()) for name, tensor in update.items()))
    assert lost[0] <= 1.02 * lost[1]


def test_autocast_leaves_no_trace_in_large_matrices() -> None:
    plain = UpdateCodec().encode(large()).to_bytes()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert UpdateCodec().encode(large()).to_bytes() == plain
