"""Encoding an update from the directions that the last one's encoding found."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_factorize import with_spectrum
from test_spans import error, refuse
from torch import Tensor

from fedkd_flwr.codec import Allocation, Budget, EncodedUpdate, Energy, ErrorFeedback, TotalEnergy, UpdateCodec, plan

SHAPES = [(300, 256), (256, 300), (256, 256)]
DENSE = 4 * sum(m * n for m, n in SHAPES)
ALLOCATIONS = [Energy(0.8), TotalEnergy(0.8), Budget(DENSE // 60), Budget(DENSE // 150)]


def update(round: int) -> dict[str, Tensor]:
    """Of a run whose updates turn a little: a third of their energy is new in each round."""
    return {
        f"{m}x{n}": (2**0.5 * with_spectrum(m, n, 4.0, 0) + with_spectrum(m, n, 4.0, round)).float() for m, n in SHAPES
    }


@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_the_next_update_is_encoded_without_gram_matrices_and_nearly_as_well(
    allocation: Allocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = UpdateCodec(allocation=allocation)
    last, owed = codec.encode(update(1)), update(2)
    afresh = codec.encode(owed)
    monkeypatch.setattr(plan, "LeadingSpectrum", refuse)
    continued = codec.encode(owed, bases=last.bases)
    assert continued.bases.keys() == owed.keys()
    assert continued.nbytes <= 1.03 * afresh.nbytes
    assert error(owed, continued) <= 1.01 * error(owed, afresh)


@settings(max_examples=30, deadline=None)
@given(
    allocation=st.sampled_from(ALLOCATIONS),
    rows=st.integers(1, 100),
    scale=st.sampled_from([0.0, 1e-20, 1.0, 1e12]),
    repeated=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_laws_hold_from_any_directions(
    allocation: Allocation, rows: int, scale: float, repeated: bool, seed: int
) -> None:
    """Also from zeros, and from rows that say the same twice."""
    generator = torch.Generator().manual_seed(seed)
    basis = scale * torch.randn(rows, 256, generator=generator)
    start = torch.cat([basis, basis]) if repeated else basis
    tensors = update(1)
    encoded = UpdateCodec(allocation=allocation).encode(tensors, bases=dict.fromkeys(tensors, start))
    match allocation:
        case Budget(nbytes):
            assert encoded.nbytes <= nbytes
        case Energy(share):
            decoded = encoded.decode()
            for name, tensor in tensors.items():
                lost = (tensor - decoded[name]).double().square().sum() / tensor.double().square().sum()
                assert lost < 1 - share
        case TotalEnergy(share):
            assert error(tensors, encoded) < 1 - share
    for row in encoded.rows():
        assert 0 < row.energy <= 1


def test_bases_lead_to_what_feedback_owes() -> None:
    """Where nothing new comes, what is owed lies in the directions that were found and not sent."""
    codec = UpdateCodec(allocation=Budget(DENSE // 150))
    sent, residual = ErrorFeedback(codec).encode(update(1), {})
    nothing = {name: torch.zeros_like(tensor) for name, tensor in residual.items()}
    of_sent = {name: rows[: sent.ranks[name]] for name, rows in sent.bases.items()}
    afresh, continued, from_sent = (
        error(residual, ErrorFeedback(codec).encode(nothing, residual, bases=bases)[0])
        for bases in ({}, sent.bases, of_sent)
    )
    assert 1 - continued > 0.97 * (1 - afresh)
    assert 1 - from_sent < 0.9 * (1 - afresh)


def test_bases_are_orthonormal_rows_of_large_matrices_that_were_sent_at_a_low_rank() -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "large": with_spectrum(300, 256, 6.0, 0).float(),
        "flat": torch.randn(300, 256, generator=generator),
        "small": with_spectrum(100, 90, 2.0, 0).float(),
        "vector": torch.ones(300),
    }
    encoded = UpdateCodec(0.9).encode(tensors)
    assert encoded.bases.keys() == {"large"}
    basis, rank = encoded.bases["large"], encoded.ranks["large"]
    assert rank < len(basis) <= 3 * rank
    torch.testing.assert_close(basis @ basis.T, torch.eye(len(basis)), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        tensors["large"] @ basis[:rank].T @ basis[:rank], encoded.decode()["large"], rtol=1e-3, atol=1e-5
    )


def test_bases_do_not_travel() -> None:
    encoded = UpdateCodec(0.5).encode(update(1))
    assert encoded.bases
    assert EncodedUpdate.from_bytes(encoded.to_bytes()).bases == {}
