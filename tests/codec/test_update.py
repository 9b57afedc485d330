from dataclasses import replace

import pytest
import torch

from fedkd_flwr.codec import CodecError, EncodedUpdate, TensorRow, UpdateCodec
from fedkd_flwr.codec.quantization import QuantizedRows
from fedkd_flwr.codec.tensors import Factored

torch.manual_seed(0)
UPDATE = {
    "weight": torch.outer(torch.randn(16), torch.randn(12)).reshape(16, 3, 4),
    "bias": torch.randn(16),
    "frozen": torch.zeros(5, 5),
}
SHAPES = {"weight": (16, 3, 4), "bias": (16,), "frozen": (5, 5)}


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


def test_rows_account_for_every_byte() -> None:
    encoded = UpdateCodec(0.9).encode(UPDATE)
    weight, bias, frozen = encoded.rows()
    assert weight == TensorRow("weight", "factored", 1, 32, 4 * (16 + 12), weight.energy)
    assert weight.energy == pytest.approx(1.0, abs=1e-5)
    assert bias == TensorRow("bias", "dense", 1, 32, 64, 1.0)
    assert frozen == TensorRow("frozen", "empty", 0, 0, 0, 1.0)
    assert encoded.header_nbytes + sum(row.nbytes for row in encoded.rows()) == encoded.nbytes
    assert encoded.ranks == {"weight": 1, "bias": 1, "frozen": 0}
    assert encoded.shapes == SHAPES


def test_wire_keeps_all_and_rounds_the_energy_of_factors_down() -> None:
    sent = UpdateCodec(0.9).encode(UPDATE)
    received = EncodedUpdate.from_bytes(sent.to_bytes())
    assert received.to_bytes() == sent.to_bytes()
    assert len(received.to_bytes()) == received.nbytes == sent.nbytes
    assert (received.shapes, received.ranks) == (sent.shapes, sent.ranks)
    for row, arrived in zip(sent.rows(), received.rows(), strict=True):
        assert 0 <= row.energy - arrived.energy <= 0.06 * (1 - row.energy)
        assert replace(arrived, energy=row.energy) == row
    decoded = received.decode()
    assert list(decoded) == list(SHAPES)
    assert all(bits(decoded[name]) == bits(tensor) for name, tensor in sent.decode().items())


def test_snapshot_is_exact_to_the_bit() -> None:
    tensors = {
        "numbers": torch.tensor([[-0.0, 1e-45, 3.4028235e38], [0.1, -1.0, 0.0]]).T,
        "zeros": -torch.zeros(3),
        "half": torch.randn(4).half(),
        "brain": torch.randn(4).bfloat16(),
        "scalar": torch.tensor(2.5),
        "nothing": torch.zeros(0, 3),
        "low rank": torch.ones(20, 20),
    }
    snapshot = EncodedUpdate.from_bytes(EncodedUpdate.dense(tensors).to_bytes())
    decoded = snapshot.decode()
    assert {row.kind for row in snapshot.rows()} == {"dense"}
    assert all(bits(decoded[name]) == bits(tensor.float()) for name, tensor in tensors.items())


@pytest.mark.parametrize("bad", [torch.tensor(1.0, dtype=torch.float64), torch.tensor(1), torch.tensor(torch.nan)])
def test_snapshot_refuses_what_it_cannot_carry(bad: torch.Tensor) -> None:
    with pytest.raises(CodecError, match="'bad'"):
        EncodedUpdate.dense({"bad": bad})


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (SHAPES | {"more": (1,)}, "'more' is missing"),
        (SHAPES | {"bias": (17,)}, r"'bias' has shape \[16\], expected \[17\]"),
        (SHAPES | {"weight": (16, 12)}, "'weight' has shape"),
        ({"weight": (16, 3, 4), "bias": (16,)}, "'frozen' is not expected"),
    ],
)
def test_require_names_the_culprit(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    encoded = UpdateCodec().encode(UPDATE)
    encoded.require(SHAPES)
    encoded.require({name: tensor.shape for name, tensor in UPDATE.items()})
    with pytest.raises(CodecError, match=message):
        encoded.require(shapes)


def test_factors_that_overflow_are_refused() -> None:
    factors = Factored((2, 3), parts=(QuantizedRows.of(torch.full((1, 5), 3e38), 32),))
    with pytest.raises(CodecError, match="'w'"):
        EncodedUpdate.of({"w": factors}).decode()


def test_no_tensors_at_all() -> None:
    encoded = EncodedUpdate.from_bytes(UpdateCodec().encode({}).to_bytes())
    encoded.require({})
    assert encoded.decode() == {}
