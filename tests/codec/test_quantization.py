import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedkd_flwr.codec import CodecError
from fedkd_flwr.codec.buffer import Reader, Writer
from fedkd_flwr.codec.quantization import WIDTHS, QuantizedRows, pack_codes, packed_nbytes, unpack_codes

CODED = [bits for bits in WIDTHS if bits < 16]


@st.composite
def matrices(draw: st.DrawFn) -> Tensor:
    """[k, n], rows of very different magnitudes, some zero."""
    k, n = draw(st.tuples(st.integers(0, 6), st.integers(0, 40)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    exponents = torch.tensor(draw(st.lists(st.integers(-30, 30), min_size=k, max_size=k)), dtype=torch.float64)
    kept = torch.tensor(draw(st.lists(st.booleans(), min_size=k, max_size=k)), dtype=torch.float64)
    values = torch.randn(k, n, generator=generator, dtype=torch.float64)
    return (values * (kept * 10**exponents)[:, None]).float()


def sent(rows: QuantizedRows) -> QuantizedRows:
    header, payload = Writer(), Writer()
    rows.write(header, payload)
    assert len(payload.getvalue()) == rows.nbytes
    readers = Reader(header.getvalue()), Reader(payload.getvalue())
    read = QuantizedRows.read(rows.bits, *rows.codes.shape, *readers)
    for reader in readers:
        reader.end()
    return read


@settings(max_examples=200, deadline=None)
@given(values=matrices(), bits=st.sampled_from(WIDTHS))
def test_wire_and_error_bound(values: Tensor, bits: int) -> None:
    rows = QuantizedRows.of(values, bits)
    read = sent(rows)
    assert read.bits == bits and torch.equal(read.values, rows.values) and read.stream == rows.stream
    k, n = values.shape
    assert rows.nbytes <= (0 if bits == 32 else 2 * k) + (k * n * bits + 7) // 8
    peaks = values.abs().amax(dim=1, keepdim=True) if n else values
    error = (rows.values - values).abs()
    if bits == 32:
        assert torch.equal(rows.values, values)
    elif bits == 16:
        assert (error <= peaks * 2.0**-11).all()
    else:
        step = peaks * (1 + 2.0**-7) / (2 ** (bits - 1) - 1) / 2
        assert (error <= step * (1 + 1e-5) + 2.0**-126).all()


@pytest.mark.parametrize("bits", CODED)
def test_error_on_gaussian_rows_is_that_of_a_uniform_grid(bits: int) -> None:
    values = torch.randn(64, 768, generator=torch.Generator().manual_seed(0))
    rows = QuantizedRows.of(values, bits)
    steps = rows.values.abs().amax(dim=1) / (2 ** (bits - 1) - 1)
    assert float((rows.values - values).square().mean()) == pytest.approx(float((steps**2 / 12).mean()), rel=0.1)


@pytest.mark.parametrize(("bits", "entropy"), [(8, 7.1), (6, 5.1), (4, 3.0), (3, 1.9)])
def test_huffman_saves_what_gaussian_codes_repeat(bits: int, entropy: float) -> None:
    rows = QuantizedRows.of(torch.randn(40, 768, generator=torch.Generator().manual_seed(0)), bits)
    assert 8 * len(rows.stream) / rows.codes.numel() < entropy + 0.25
    assert 8 * len(rows.stream) / rows.codes.numel() < bits - 0.6


def test_codes_without_any_pattern_are_packed() -> None:
    for bits in CODED:
        largest = 2 ** (bits - 1) - 1
        codes = torch.arange(-largest, largest + 1).float().repeat(3)[None]
        rows = sent(QuantizedRows.of(codes, bits))
        assert len(rows.stream) <= (codes.numel() * bits + 7) // 8
        assert torch.equal(rows.codes.float(), codes)


@given(width=st.integers(1, 8), data=st.data())
def test_packed_codes_leave_no_gap(width: int, data: st.DataObject) -> None:
    codes = np.array(data.draw(st.lists(st.integers(0, 2**width - 1), max_size=40)), dtype=np.uint8)
    stream = pack_codes(codes, width)
    written = "".join(f"{code:0{width}b}" for code in codes)
    assert stream == bytes(int(written[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(written), 8))
    assert len(stream) == packed_nbytes(len(codes), width)
    assert unpack_codes(stream, len(codes), width).tolist() == codes.tolist()


def test_extreme_rows() -> None:
    for bits in WIDTHS:
        values = torch.tensor([[3.3e38, -3.3e38], [0.0, 0.0], [1e-38, 1e-45]])
        assert torch.isfinite(sent(QuantizedRows.of(values, bits)).values).all()


def header(*numbers: int) -> Reader:
    writer = Writer()
    for number in numbers:
        writer.varint(number)
    return Reader(writer.getvalue())


SCALE = np.float32(1).tobytes()[2:]


@pytest.mark.parametrize(
    ("bits", "shape", "numbers", "payload", "message"),
    [
        (7, (1, 1), (), b"", "7 bits"),
        (0, (1, 1), (), b"", "0 bits"),
        (4, (1, 2), (0,), b"\0\0\x99", "scale"),
        (4, (1, 2), (0,), b"\xc0\x7f\x99", "scale"),
        (4, (1, 2), (0,), b"\x80\x7f\x99", "scale"),
        (4, (1, 2), (0,), b"\x80\xbf\x99", "scale"),
        (4, (1, 2), (0,), SCALE + b"\x90", "beyond 4 bits"),
        (4, (1, 1), (0,), SCALE + b"\x91", "end with zeros"),
        (4, (1, 2), (0,), SCALE, "too early"),
        (16, (1, 1), (), SCALE + b"\0\x7c", "inf or nan"),
        (8, (1, 8), (9,), SCALE, "cannot be in -1 bytes"),
        (8, (2**40, 2**20), (8 * 2**57,), SCALE, "cannot be in"),
        (8, (1, 2**50), (0,), SCALE, "too early"),
        (8, (2**50, 1), (0,), SCALE, "too early"),
        (32, (1, 2**60), (), b"", "too early"),
        (8, (1, 16), (13,), SCALE + b"\xff\xff\xff", "inflated"),
        (8, (1, 16), (13,), SCALE + b"\x63\x64\x05", "length"),
    ],
)
def test_hostile_rows(
    bits: int, shape: tuple[int, int], numbers: tuple[int, ...], payload: bytes, message: str
) -> None:
    with pytest.raises(CodecError, match=message):
        QuantizedRows.read(bits, *shape, header(*numbers), Reader(payload))
