import pytest
import torch

from fedkd_flwr.codec import CodecError, factorize
from fedkd_flwr.codec.buffer import Reader, Writer
from fedkd_flwr.codec.energy import DOUBT
from fedkd_flwr.codec.factored import Factored
from fedkd_flwr.codec.quantize import WIDTHS


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


def test_random_rounding_has_the_product_as_its_mean() -> None:
    factors = factorize(decaying(20, 10), 0.9)
    generator = torch.Generator().manual_seed(0)
    widths = ((4, 1), (3, factors.rank - 1))
    draws = torch.stack([Factored.of((20, 10), factors, widths, generator).decode() for _ in range(1000)])
    distance = (draws.mean(dim=0) - factors.left @ factors.right).abs()
    assert (distance <= 5 * draws.std(dim=0) / 1000**0.5 + 1e-6).all()


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
