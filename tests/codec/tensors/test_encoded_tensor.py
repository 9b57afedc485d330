import pytest
import torch

from fedkd_flwr.codec import CodecError, factorize
from fedkd_flwr.codec.buffer import Reader, Writer
from fedkd_flwr.codec.tensors import Dense, Empty, EncodedTensor, Factored
from fedkd_flwr.codec.tensors.rotated import Rotated


@pytest.mark.parametrize(
    "encoded",
    [
        Empty((3, 4)),
        Dense.of(torch.randn(())),
        Dense.of(torch.randn(0, 3)),
        Dense.of(torch.randn(4, 6).T),
        Rotated.of(torch.randn(4, 6).T, 3),
        Factored.of((6, 2, 4), factorize(torch.randn(6, 8), 0.5)),
    ],
)
def test_a_tensor_is_read_as_it_was_written(encoded: EncodedTensor) -> None:
    header, payload = Writer(), Writer()
    encoded.write(header, payload)
    header_reader, payload_reader = Reader(header.getvalue()), Reader(payload.getvalue())
    read = type(encoded).read(encoded.shape, 0.5, header_reader, payload_reader)
    header_reader.end()
    payload_reader.end()
    assert encoded.nbytes == read.nbytes == len(payload.getvalue())
    assert encoded.rank == read.rank
    assert read.energy == 0.5
    assert encoded.decode().shape == encoded.shape
    assert torch.equal(read.decode(), encoded.decode())


def test_dense_shares_no_memory() -> None:
    source = torch.ones(3)
    encoded = Dense.of(source)
    source += 1
    decoded = encoded.decode()
    decoded += 1
    assert torch.equal(encoded.rows.values, torch.ones(1, 3))


@pytest.mark.parametrize("rank", [0, 4])
def test_rank_that_does_not_fit_is_refused(rank: int) -> None:
    header = Writer()
    for number in (1, 32, rank):
        header.varint(number)
    with pytest.raises(CodecError, match=f"rank {rank}"):
        Factored.read((3, 5), 0.5, Reader(header.getvalue()), Reader(b""))
