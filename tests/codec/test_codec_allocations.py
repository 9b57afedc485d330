import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_update_codec import updates
from torch import Tensor

from fedkd_flwr.codec import Allocation, Budget, CodecError, EncodedUpdate, Energy, Uniform, UpdateCodec
from fedkd_flwr.codec.energy import DOUBT
from fedkd_flwr.codec.quantization import WIDTHS
from fedkd_flwr.codec.wire_format import serialize

widths = st.sampled_from([None, *WIDTHS])
allocations = st.one_of(
    st.builds(Energy, st.floats(0.05, 1)),
    st.builds(Budget, st.integers(500, 5000)),
    st.just(Uniform()),
)


def uneven(seed: int = 0) -> dict[str, Tensor]:
    """Matrices whose spectra fall at very different speeds, as those of real updates do, and vectors."""
    generator = torch.Generator().manual_seed(seed)
    update = {}
    for index, (out, rest, decay) in enumerate([(96, 96, 0.3), (96, 96, 3.0), (192, 96, 1.0), (96, 192, 2.0)]):
        u, _, v = torch.linalg.svd(torch.randn(out, rest, generator=generator), full_matrices=False)
        update[f"layer.{index}.weight"] = u @ torch.diag(torch.logspace(0, -decay, min(out, rest))) @ v
        update[f"layer.{index}.bias"] = 0.01 * torch.randn(out, generator=generator)
    return update


def norm2(update: dict[str, Tensor]) -> float:
    return sum(float(tensor.double().square().sum()) for tensor in update.values())


def kept(update: dict[str, Tensor], encoded: EncodedUpdate) -> float:
    """Share of the energy that really arrives."""
    decoded = EncodedUpdate.from_bytes(encoded.to_bytes()).decode()
    return 1 - norm2({name: tensor.float() - decoded[name] for name, tensor in update.items()}) / norm2(update)


def dense_nbytes(update: dict[str, Tensor]) -> int:
    return EncodedUpdate.dense({name: tensor.float() for name, tensor in update.items()}).nbytes


@settings(max_examples=150, deadline=None)
@given(update=updates, share=st.floats(0, 1.5), bits=widths)
def test_never_over_budget_never_over_dense(update: dict[str, Tensor], share: float, bits: int | None) -> None:
    nbytes = max(1, int(share * dense_nbytes(update)))
    try:
        encoded = UpdateCodec(allocation=Budget(nbytes), bits=bits).encode(update)
    except CodecError as error:
        assert "budget" in str(error)
        nothing = EncodedUpdate.of(UpdateCodec().encode({n: torch.zeros(t.shape) for n, t in update.items()})._tensors)
        assert nothing.nbytes > nbytes
        return
    assert encoded.nbytes == len(encoded.to_bytes()) <= min(nbytes, dense_nbytes(update))
    received = EncodedUpdate.from_bytes(encoded.to_bytes())
    received.require({name: tensor.shape for name, tensor in update.items()})
    for name, tensor in received.decode().items():
        assert torch.equal(tensor, encoded.decode()[name])
    assert serialize(received._tensors) == encoded.to_bytes()


@settings(max_examples=150, deadline=None)
@given(update=updates, allocation=allocations, bits=widths)
def test_receivers_know_what_each_tensor_keeps(
    update: dict[str, Tensor], allocation: Allocation, bits: int | None
) -> None:
    """Never more than arrives, and within a twelfth of an octave of what was dropped, and of what float32 resolves."""
    received = EncodedUpdate.from_bytes(UpdateCodec(allocation=allocation, bits=bits).encode(update).to_bytes())
    decoded = received.decode()
    for row in received.rows():
        tensor = {row.name: update[row.name]}
        if not norm2(tensor):
            assert row.energy == 1.0
            continue
        dropped = norm2({row.name: tensor[row.name].double() - decoded[row.name]}) / norm2(tensor)
        assert dropped <= (1 - row.energy) + 1e-9
        assert 1 - row.energy <= 2 ** (1 / 12) * (dropped + 2 * DOUBT) or row.energy == 0 <= dropped - 1 + DOUBT


@settings(max_examples=100, deadline=None)
@given(energy=st.floats(0.05, 0.9999), bits=st.sampled_from(WIDTHS), seed=st.integers(0, 5))
@example(energy=0.99, bits=32, seed=0)
@example(energy=0.999, bits=16, seed=0)
@example(energy=0.999, bits=8, seed=0)
@example(energy=0.1, bits=8, seed=0)
def test_at_equal_bytes_a_budget_keeps_what_the_rule_keeps_within_1_percent(
    energy: float, bits: int, seed: int
) -> None:
    """The paper's rule keeps the same share of each matrix; a budget shares bytes out by what they are worth."""
    update = uneven(seed)
    alone = UpdateCodec(energy, bits=bits).encode(update)
    for width in (bits, None):
        together = UpdateCodec(allocation=Budget(alone.nbytes), bits=width).encode(update)
        assert together.nbytes <= alone.nbytes
        assert kept(update, together) >= 0.99 * kept(update, alone)


def test_more_bytes_keep_more_and_are_used() -> None:
    update = uneven()
    before = -1.0
    for nbytes in (400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200):
        encoded = UpdateCodec(allocation=Budget(nbytes)).encode(update)
        assert 0.9 * nbytes < encoded.nbytes <= nbytes
        assert kept(update, encoded) > before
        before = kept(update, encoded)


def test_a_budget_for_the_names_alone_sends_nothing_and_less_is_refused() -> None:
    update = uneven()
    nothing = UpdateCodec().encode({name: torch.zeros_like(tensor) for name, tensor in update.items()})
    encoded = UpdateCodec(allocation=Budget(nothing.nbytes)).encode(update)
    assert encoded.nbytes == nothing.nbytes
    assert not any(tensor.any() for tensor in encoded.decode().values())
    assert all(row.energy == 0 for row in encoded.rows())
    with pytest.raises(CodecError, match=f"names and shapes of the update take {nothing.nbytes}"):
        UpdateCodec(allocation=Budget(nothing.nbytes - 1)).encode(update)


def test_a_budget_beyond_all_sends_all() -> None:
    update = uneven()
    encoded = UpdateCodec(allocation=Budget(10**9)).encode(update)
    assert all(torch.equal(tensor, update[name]) for name, tensor in encoded.decode().items())


@pytest.mark.parametrize("bits", [16, 8, 6, 5, 4, 3])
def test_quantised_factors_of_the_paper_keep_its_ranks(bits: int) -> None:
    update = uneven()
    exact, coded = UpdateCodec(0.9).encode(update), UpdateCodec(0.9, bits=bits).encode(update)
    assert exact.ranks == coded.ranks
    assert coded.nbytes < exact.nbytes * (bits + 1) / 32 + 400
    assert [row.bits for row in coded.rows() if row.name.endswith("bias")] == [max(bits, 8)] * 4
    assert kept(update, coded) > kept(update, exact) - {16: 1e-6, 8: 1e-3, 6: 5e-3, 5: 0.01, 4: 0.04, 3: 0.2}[bits]


def test_encodings_repeat_to_the_bit() -> None:
    update = uneven()
    codec = UpdateCodec(allocation=Budget(5000))
    assert codec.encode(update).to_bytes() == codec.encode(update).to_bytes()


def test_bits_out_of_range() -> None:
    with pytest.raises(CodecError, match="bits must be one of 32, 16"):
        UpdateCodec(bits=7)
