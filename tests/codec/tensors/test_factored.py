from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd_flwr.codec import CodecError, factorize
from fedkd_flwr.codec.buffer import Reader, Writer
from fedkd_flwr.codec.energy import DOUBT
from fedkd_flwr.codec.quantization import WIDTHS, QuantizedRows
from fedkd_flwr.codec.tensors import Factored


def decaying(out: int = 60, rest: int = 40, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    u, _, v = torch.linalg.svd(torch.randn(out, rest, generator=generator), full_matrices=False)
    product: torch.Tensor = u @ torch.diag(torch.logspace(0, -2, rest)) @ v
    return product


@pytest.mark.parametrize("bits", WIDTHS)
def test_measured_energy_is_what_arrives(bits: int) -> None:
    matrix = decaying()
    factors = factorize(matrix, 0.98)
    for widths in (((bits, factors.rank),), ((8, 1), (bits, factors.rank - 1))):
        total = float(matrix.square().sum())
        record = Factored.of((60, 5, 8), factors, widths).measured(matrix.reshape(60, 5, 8), total)
        error = float((record.decode().reshape(60, 40) - matrix).double().square().sum()) / total
        assert 1 - error - 2 * DOUBT < record.energy < 1 - error
        assert record.bits == widths[0][0] and record.rank == factors.rank


def test_sides_of_a_row_have_one_peak() -> None:
    factors = factorize(torch.outer(torch.arange(1.0, 61), torch.ones(10)), 0.9)
    left, right = Factored.of((60, 10), factors, ((8, 1),)).factors()
    assert float(left.abs().max()) == pytest.approx(float(right.abs().max()), rel=0.01)


@settings(max_examples=50)
@given(
    widths=st.lists(st.tuples(st.sampled_from((8, 6, 5, 4, 3)), st.integers(1, 40)), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
)
def test_codes_decode_to_the_exact_product_rounded_once(widths: list[tuple[int, int]], seed: int) -> None:
    """In whatever order a machine adds: none of its sums is rounded. Scales differ by up to 2^7."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for bits, count in widths:
        rows = (torch.rand(count, 12, generator=generator) * 2 - 1) * (2 ** (bits - 1) - 1)
        rows[:, 0] = 2 ** (bits - 1) - 1
        parts.append(QuantizedRows.of(rows * 2 ** (6.9 * torch.rand(count, 1, generator=generator)), bits))
    scales = torch.cat([part.scales for part in parts])
    assert scales.max() <= 2**7 * scales.min()
    factored = Factored((5, 7), parts=tuple(parts))
    left, right = ([[Fraction(x) for x in row] for row in side.tolist()] for side in factored.factors())
    exact = [[sum(a * row[j] for a, row in zip(line, right, strict=True)) for j in range(7)] for line in left]
    assert all(Fraction(float(x)) == x for line in exact for x in line)
    assert torch.equal(factored.decode(), torch.tensor([[float(x) for x in line] for line in exact]).float())


def test_parts_are_read_as_written() -> None:
    factors = factorize(decaying(), 0.99)
    widths = ((16, 1), (8, 2), (6, 3), (4, factors.rank - 6))
    record = Factored.of((60, 40), factors, widths)
    header, payload = Writer(), Writer()
    record.write(header, payload)
    read = Factored.read((60, 40), 0.5, Reader(header.getvalue()), Reader(payload.getvalue()))
    assert [(part.bits, len(part.codes)) for part in read.parts] == list(widths)
    assert torch.equal(read.decode(), record.decode())
    assert len(payload.getvalue()) == read.nbytes == record.nbytes


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((0,), "0 parts"),
        ((8,), "8 parts"),
        ((1, 32, 0), "rank 0"),
        ((1, 32, 4), "rank 4"),
        ((2, 32, 3, 32, 1), "rank 4"),
        ((2, 32, 1, 32, 0), "rank 1"),
        ((1, 9, 1), "9 bits"),
    ],
)
def test_hostile_parts(numbers: tuple[int, ...], message: str) -> None:
    header = Writer()
    for number in numbers:
        header.varint(number)
    with pytest.raises(CodecError, match=message):
        Factored.read((3, 5), 0.5, Reader(header.getvalue()), Reader(bytes(200)))
