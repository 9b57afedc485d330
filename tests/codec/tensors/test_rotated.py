import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedkd_flwr.codec import CodecError, EncodedUpdate, Uniform, UpdateCodec
from fedkd_flwr.codec.buffer import Reader, Writer
from fedkd_flwr.codec.energy import DOUBT
from fedkd_flwr.codec.hadamard import groups_of
from fedkd_flwr.codec.tensors.rotated import _LEVELS, ROTATED_WIDTHS, Rotated

bits = st.sampled_from(ROTATED_WIDTHS)
shapes = st.one_of(
    st.lists(st.integers(1, 12), max_size=3).map(tuple), st.tuples(st.integers(60, 70), st.integers(60, 70))
)


def lost(tensor: torch.Tensor, record: Rotated) -> float:
    return float((record.decode() - tensor).double().square().sum() / tensor.double().square().sum())


@given(shape=shapes, width=bits, exponent=st.integers(-37, 37))
def test_wire_bytes_and_energy(shape: tuple[int, ...], width: int, exponent: int) -> None:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(exponent + 40)) * 10.0**exponent
    record = Rotated.of(tensor, width)
    header, payload = Writer(), Writer()
    record.write(header, payload)
    readers = Reader(header.getvalue()), Reader(payload.getvalue())
    read = Rotated.read(shape, record.energy, *readers)
    for reader in readers:
        reader.end()
    assert torch.equal(read.decode(), record.decode())
    groups = groups_of(tensor.numel())
    assert len(payload.getvalue()) == record.nbytes == (tensor.numel() * width + 7) // 8 + 2 * groups
    assert record.decode().shape == shape
    scaled = (record.decode().double() - tensor.double()).square().sum() / tensor.double().square().sum()
    assert 1 - record.energy - 2 * DOUBT <= float(scaled) <= 1 - record.energy + 1e-6


@pytest.mark.parametrize("width", ROTATED_WIDTHS)
@pytest.mark.parametrize("source", ["gaussian", "sparse", "one row"])
def test_error_is_that_of_lloyd_and_max(width: int, source: str) -> None:
    """Whatever the distribution: a rotation makes it Gaussian, or a few sums, which is better. 1 bit: 1 - 2 / pi."""
    tensor = torch.randn(300, 301, generator=torch.Generator().manual_seed(0))
    if source == "sparse":
        tensor *= torch.rand(300, 301, generator=torch.Generator().manual_seed(1)) < 0.1
    if source == "one row":
        tensor[17] *= 30
    expected = {1: 0.3634, 2: 0.1175, 3: 0.0345, 4: 0.0095}[width]
    record = Rotated.of(tensor, width)
    assert lost(tensor, record) < 1.03 * expected
    assert lost(tensor, record) > 0.97 * expected or source == "one row"


@pytest.mark.parametrize("width", ROTATED_WIDTHS)
def test_levels_are_the_means_of_their_cells(width: int) -> None:
    """The fixed point of Lloyd's iteration on a unit Gaussian."""
    levels = torch.tensor(_LEVELS[width], dtype=torch.float64)
    zero, infinity = torch.zeros(1, dtype=torch.float64), torch.full((1,), torch.inf, dtype=torch.float64)
    edges = torch.cat([zero, (levels[1:] + levels[:-1]) / 2, infinity])
    density = (-edges.square() / 2).exp() / (2 * torch.pi) ** 0.5
    cells = torch.special.ndtr(edges).diff()
    torch.testing.assert_close(-density.diff() / cells, levels, rtol=0, atol=1e-7)


def test_encoding_always_comes_nearer_and_repeats() -> None:
    for tensor in (torch.ones(50), torch.eye(40), torch.arange(5.0)):
        first, again = Rotated.of(tensor, 1), Rotated.of(tensor, 1)
        assert lost(tensor, first) < 1
        assert (first.seed, first.codes.tolist()) == (again.seed, again.codes.tolist())
        assert Rotated.of(3 * tensor, 1).seed != first.seed


@pytest.mark.parametrize("width", [None, *ROTATED_WIDTHS])
def test_a_codec_of_its_own(width: int | None) -> None:
    update = {"w": torch.randn(64, 100), "b": torch.randn(64), "zero": torch.zeros(9, 9), "none": torch.zeros(0, 4)}
    encoded = UpdateCodec(allocation=Uniform(rotated=True), bits=width).encode(update)
    received = EncodedUpdate.from_bytes(encoded.to_bytes())
    rows = {row.name: row for row in received.rows()}
    assert (rows["w"].kind, rows["w"].bits) == ("rotated", width or 4)
    assert (rows["b"].kind, rows["b"].bits) == ("dense", 8)
    assert rows["zero"].kind == rows["none"].kind == "empty"
    assert all(torch.equal(tensor, encoded.decode()[name]) for name, tensor in received.decode().items())


def test_bits_that_are_not_rotated() -> None:
    with pytest.raises(CodecError, match="bits must be one of 4, 3, 2, 1, got 8"):
        UpdateCodec(allocation=Uniform(rotated=True), bits=8)
    with pytest.raises(CodecError, match="bits must be one of 32"):
        UpdateCodec(allocation=Uniform(), bits=1)


SCALE = b"\x80\x3f"


@pytest.mark.parametrize(
    ("shape", "numbers", "payload", "message"),
    [
        ((8,), (5, 0), SCALE + b"\0" * 5, "5 bits"),
        ((8,), (0, 0), SCALE, "0 bits"),
        ((8,), (1, 1 << 16), SCALE + b"\0", "seed 65536"),
        ((0, 3), (1, 0), b"", "0 numbers"),
        ((8,), (1, 0), b"\0\0\0", "scale"),
        ((8,), (1, 0), b"\xc0\x7f\0", "scale"),
        ((8,), (1, 0), SCALE, "too early"),
        ((4,), (1, 0), SCALE + b"\x01", "end with zeros"),
        ((2**40, 2**20), (4, 0), SCALE, "too early"),
    ],
)
def test_hostile_rotations(shape: tuple[int, ...], numbers: tuple[int, ...], payload: bytes, message: str) -> None:
    header = Writer()
    for number in numbers:
        header.varint(number)
    with pytest.raises(CodecError, match=message):
        Rotated.read(shape, 0.5, Reader(header.getvalue()), Reader(payload))
