import pytest
import torch

from fedkd_flwr.codec import CodecError, factorize
from fedkd_flwr.codec.buffer import Reader, Writer
from fedkd_flwr.codec.host import finite_float32
from fedkd_flwr.codec.shapes import matrix_shape
from fedkd_flwr.codec.tensors import Dense, Empty, EncodedTensor, Factored
from fedkd_flwr.codec.tensors.rotated import Rotated


@pytest.mark.parametrize(
    ("shape", "matrix"),
    [((), (1, 1)), ((5,), (5, 1)), ((2, 3), (2, 3)), ((8, 3, 2, 2), (8, 12)), ((0, 4), (0, 4))],
)
def test_tensors_flatten_to_out_by_rest(shape: tuple[int, ...], matrix: tuple[int, int]) -> None:
    assert matrix_shape(shape) == matrix


@pytest.mark.parametrize(
    "record",
    [
        Empty((3, 4)),
        Dense.of(torch.randn(())),
        Dense.of(torch.randn(0, 3)),
        Dense.of(torch.randn(4, 6).T),
        Rotated.of(torch.randn(4, 6).T, 3),
        Factored.of((6, 2, 4), factorize(torch.randn(6, 8), 0.5)),
    ],
)
def test_a_record_is_read_as_it_was_written(record: EncodedTensor) -> None:
    header, payload = Writer(), Writer()
    record.write(header, payload)
    header_reader, payload_reader = Reader(header.getvalue()), Reader(payload.getvalue())
    read = type(record).read(record.shape, 0.5, header_reader, payload_reader)
    header_reader.end()
    payload_reader.end()
    assert record.nbytes == read.nbytes == len(payload.getvalue())
    assert record.rank == read.rank
    assert read.energy == 0.5
    assert record.decode().shape == record.shape
    assert torch.equal(read.decode(), record.decode())


def test_dense_shares_no_memory() -> None:
    source = torch.ones(3)
    record = Dense.of(source)
    source += 1
    decoded = record.decode()
    decoded += 1
    assert torch.equal(record.rows.values, torch.ones(1, 3))


@pytest.mark.parametrize("rank", [0, 4])
def test_rank_that_does_not_fit_is_refused(rank: int) -> None:
    header = Writer()
    for number in (1, 32, rank):
        header.varint(number)
    with pytest.raises(CodecError, match=f"rank {rank}"):
        Factored.read((3, 5), 0.5, Reader(header.getvalue()), Reader(b""))


def test_tensors_are_checked_by_name() -> None:
    for bad in (torch.tensor([1]), torch.tensor([1j]), torch.tensor([True])):
        with pytest.raises(CodecError, match="'w'"):
            finite_float32({"v": torch.ones(1), "w": bad})
    for number in (float("nan"), float("inf"), 1e39):
        with pytest.raises(CodecError, match="'w'"):
            finite_float32({"v": torch.ones(1), "w": torch.tensor([number], dtype=torch.float64)})
