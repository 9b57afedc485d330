"""Encoding tensors of which it is known in what span they lie, as a mean of updates that came as factors does."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_factorize import energy_shares, with_spectrum
from torch import Tensor

from fedkd_flwr.codec import Allocation, Budget, EncodedUpdate, Energy, TotalEnergy, UpdateCodec, plan
from fedkd_flwr.codec.factorize import spanned

SHAPES = [(300, 256), (256, 300), (256, 256)]
DENSE = 4 * sum(out * rest for out, rest in SHAPES)


def sent(node: int) -> EncodedUpdate:
    update = {f"{m}x{n}": with_spectrum(m, n, 2.0, node).float() for m, n in SHAPES}
    return UpdateCodec(allocation=Budget(DENSE // 40)).encode(update)


@pytest.fixture(scope="module")
def mean() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Of two updates that came as factors, and what spans it."""
    updates = [sent(0), sent(1)]
    decoded, spans = [update.decode() for update in updates], [update.spans() for update in updates]
    return (
        {name: (decoded[0][name] + decoded[1][name]) / 2 for name in decoded[0]},
        {name: torch.cat([each[name] for each in spans]) for name in spans[0]},
    )


def refuse(*_: object) -> None:
    """In the place of a decomposition by the Gram matrix."""
    raise AssertionError("a Gram matrix")


def error(update: dict[str, Tensor], encoded: EncodedUpdate) -> float:
    decoded = encoded.decode()
    lost = sum(float((tensor - decoded[name]).double().square().sum()) for name, tensor in update.items())
    return lost / sum(float(tensor.double().square().sum()) for tensor in update.values())


ALLOCATIONS = [Energy(0.5), Energy(0.95), TotalEnergy(0.9), Budget(DENSE // 40), Budget(DENSE // 150)]


@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_a_mean_keeps_what_it_would_without_in_as_many_bytes_and_without_gram_matrices(
    mean: tuple[dict[str, Tensor], dict[str, Tensor]], allocation: Allocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    update, spans = mean
    codec = UpdateCodec(allocation=allocation)
    with monkeypatch.context() as patched:
        patched.setattr(plan, "LeadingSpectrum", refuse)
        within = codec.encode(update, spans=spans)
    without = codec.encode(update)
    assert within.nbytes <= 1.005 * without.nbytes
    assert error(update, within) <= 1.01 * error(update, without) + 1e-6
    if isinstance(allocation, Energy):
        assert {n: r - 1 <= within.ranks[n] <= r for n, r in without.ranks.items()} == dict.fromkeys(update, True)
        assert all(row.energy > allocation.share for row in within.rows())


@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_what_lies_in_no_span_is_encoded_as_without(
    mean: tuple[dict[str, Tensor], dict[str, Tensor]], allocation: Allocation
) -> None:
    spans = mean[1]
    update = {name: tensor + 1e-3 * sent(2).decode()[name] for name, tensor in mean[0].items()}
    codec = UpdateCodec(allocation=allocation)
    assert codec.encode(update, spans=spans).to_bytes() == codec.encode(update).to_bytes()


def test_more_energy_than_a_span_is_sure_of_is_kept_all_the_same(
    mean: tuple[dict[str, Tensor], dict[str, Tensor]],
) -> None:
    """3e-7 of the energy lies outside: rounding alone might put as much there."""
    generator, spans = torch.Generator().manual_seed(0), mean[1]
    update = {}
    for name, tensor in mean[0].items():
        noise = torch.randn(tensor.shape, generator=generator)
        update[name] = tensor + 3e-7**0.5 * tensor.norm() / noise.norm() * noise
        assert spanned(update[name], spans[name]) is not None
    encoded = UpdateCodec(1 - 1e-8).encode(update, spans=spans)
    assert encoded.ranks == UpdateCodec(1 - 1e-8).encode(update).ranks
    assert error(update, encoded) < 1e-8


@settings(max_examples=60, deadline=None)
@given(
    m=st.integers(2, 90),
    n=st.integers(2, 90),
    share=st.floats(0, 0.5),
    more=st.integers(0, 3),
    scale=st.sampled_from([1e-30, 1e-4, 1.0, 1e30]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_values_in_a_span_are_those_of_the_svd(
    m: int, n: int, share: float, more: int, scale: float, seed: int
) -> None:
    """Also where rows of the span say the same twice."""
    side = min(m, n)
    rank = max(1, int(share * side))
    full = with_spectrum(m, n, 2.0, seed)
    left, sigma, right = torch.linalg.svd(full, full_matrices=False)
    matrix = (scale * left[:, :rank] * sigma[:rank] @ right[:rank]).float()
    factor = right[:rank] if m >= n else left[:, :rank].T
    rows = torch.cat([factor, factor[:more]]).float()
    spectrum = spanned(matrix, rows)
    if len(rows) > side / 2:
        assert spectrum is None
        return
    assert spectrum is not None
    np.testing.assert_allclose(spectrum.shares[:rank], energy_shares(matrix)[:rank], atol=1e-5)
    assert (
        spectrum.rank(0.9) == int((energy_shares(matrix) <= 0.9).sum()) + 1
        or abs(energy_shares(matrix) - 0.9).min() < 1e-5
    )


def test_spans_are_those_of_the_tensors_that_came_as_factors_or_zeros() -> None:
    tall, wide = with_spectrum(40, 20, 4.0, 0).float(), with_spectrum(20, 40, 4.0, 1).float()
    generator = torch.Generator().manual_seed(0)
    update = {"tall": tall, "wide": wide, "flat": torch.randn(30, 30, generator=generator), "zero": torch.zeros(9, 9)}
    encoded = EncodedUpdate.from_bytes(UpdateCodec(0.99).encode(update).to_bytes())
    spans = encoded.spans()
    assert {name: tuple(rows.shape) for name, rows in spans.items()} == {
        "tall": (encoded.ranks["tall"], 20),
        "wide": (encoded.ranks["wide"], 20),
        "zero": (0, 9),
    }
    for name, decoded in encoded.decode().items():
        if name in ("tall", "wide"):
            basis = torch.linalg.qr(spans[name].T).Q
            upright = decoded if name == "tall" else decoded.T
            torch.testing.assert_close(upright @ basis @ basis.T, upright, rtol=1e-4, atol=1e-6)
