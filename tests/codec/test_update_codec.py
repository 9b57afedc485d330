import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedkd_flwr.codec import CodecError, EncodedUpdate, UpdateCodec, factorize
from fedkd_flwr.codec.energy import DOUBT

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """A tensor of any shape, dtype, layout, rank and magnitude that fits its dtype."""
    shape = tuple(draw(st.lists(st.integers(0, 12), max_size=4)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from(DTYPES))
    exponent = draw(st.integers(-2, 2) if dtype == torch.float16 else st.integers(-30, 30))
    tensor = torch.randn(shape, generator=generator, dtype=torch.float64)
    if tensor.ndim >= 2 and draw(st.booleans()):
        rank_one = torch.randn(shape[0], generator=generator, dtype=torch.float64)
        tensor = tensor[:1] * rank_one.reshape(-1, *[1] * (tensor.ndim - 1)) + 0.05 * tensor
    tensor = tensor * draw(st.sampled_from([0.0, 1.0])) * 10.0**exponent
    if tensor.ndim >= 2 and draw(st.booleans()):
        tensor = tensor.transpose(0, -1)
    return tensor.to(dtype)


updates = st.dictionaries(st.text(max_size=20), tensors(), max_size=6)


@settings(max_examples=150, deadline=None)
@given(update=updates, energy=st.floats(0.1, 1))
def test_laws_of_the_codec(update: dict[str, Tensor], energy: float) -> None:
    codec = UpdateCodec(energy)
    encoded = codec.encode(update)
    received = EncodedUpdate.from_bytes(encoded.to_bytes())
    decoded = codec.decode(received)

    assert encoded.nbytes == len(encoded.to_bytes())
    assert encoded.to_bytes() == codec.encode(update).to_bytes()
    assert list(decoded) == list(update)
    received.require({name: tuple(tensor.shape) for name, tensor in update.items()})
    for row in encoded.rows():
        source, result = update[row.name].float(), decoded[row.name]
        assert result.dtype == torch.float32 and result.shape == source.shape
        assert torch.equal(result, encoded.decode()[row.name])
        assert row.nbytes <= 4 * source.numel()
        assert (row.kind == "empty") == (not source.any())
        if row.kind == "factored":
            norm = source.double().square().sum()
            error = float((source.double() - result.double()).square().sum() / norm)
            assert row.energy > energy - DOUBT
            assert error == pytest.approx(1 - row.energy, rel=1e-3, abs=1e-5)
        else:
            assert torch.equal(result, source)


@settings(max_examples=30, deadline=None)
@given(update=updates)
def test_ranks_do_not_depend_on_the_company(update: dict[str, Tensor]) -> None:
    codec = UpdateCodec(0.9)
    together = codec.encode(update).ranks
    assert together == {name: codec.encode({name: tensor}).ranks[name] for name, tensor in update.items()}


def low_rank(*shape: int, rank: int = 3) -> Tensor:
    torch.manual_seed(0)
    rest = int(np.prod(shape[1:]))
    return (torch.randn(shape[0], rank) @ torch.randn(rank, rest)).reshape(shape)


def test_kinds_and_sizes() -> None:
    update = {
        "matrix": low_rank(64, 48),
        "wide": low_rank(48, 200),
        "convolution": low_rank(32, 16, 3, 3),
        "noise": torch.randn(32, 32),
        "vector": torch.randn(64),
        "row": torch.randn(1, 64),
        "column": torch.randn(64, 1),
        "tiny": torch.ones(2, 2),
        "scalar": torch.tensor(1.0),
        "zero": torch.zeros(64, 48),
        "no elements": torch.zeros(3, 0, 2),
    }
    encoded = UpdateCodec(0.9999).encode(update)
    kinds = {row.name: row.kind for row in encoded.rows()}
    factored = {"matrix", "wide", "convolution"}
    empty = {"zero", "no elements"}
    for name, kind in kinds.items():
        assert kind == ("factored" if name in factored else "empty" if name in empty else "dense"), name
    for row in encoded.rows():
        if row.name in factored:
            tensor = update[row.name]
            flat = tensor.reshape(tensor.shape[0], -1)
            assert row.rank == factorize(flat, 0.9999).rank == 3
            assert row.nbytes == 4 * 3 * sum(flat.shape)
    assert encoded.nbytes < EncodedUpdate.dense(update).nbytes


def test_factors_are_used_only_where_smaller() -> None:
    for n in range(2, 12):
        for rank in range(1, n + 1):
            diagonal = torch.diag(torch.tensor([1.0] * rank + [0.0] * (n - rank)))
            (row,) = UpdateCodec(0.9999).encode({"w": diagonal}).rows()
            assert row.kind == ("factored" if 2 * rank < n else "dense")


def test_energy_one_is_lossless() -> None:
    matrix = low_rank(20, 30)
    assert torch.equal(UpdateCodec(1.0).encode({"w": matrix}).decode()["w"], matrix)


def test_magnitudes_do_not_change_the_rank() -> None:
    matrix = low_rank(40, 30) + 0.1 * torch.randn(40, 30)
    ranks = {UpdateCodec().encode({"w": matrix * scale}).ranks["w"] for scale in (1e-30, 1e-6, 1.0, 1e6, 1e30)}
    assert len(ranks) == 1


def test_update_is_left_alone_and_not_shared() -> None:
    update = {"w": low_rank(20, 20).requires_grad_(), "b": torch.ones(4)}
    before = {name: tensor.detach().clone() for name, tensor in update.items()}
    encoded = UpdateCodec().encode(update)
    encoded.decode()["b"].add_(1)
    update["b"].mul_(3)
    assert torch.equal(encoded.decode()["b"], before["b"])
    assert torch.equal(update["w"].detach(), before["w"])


@pytest.mark.parametrize(
    "bad",
    [
        torch.tensor([[1.0, torch.nan]]),
        torch.tensor([torch.inf]),
        torch.tensor([1e39], dtype=torch.float64),
        torch.tensor([1]),
    ],
)
def test_bad_tensor_is_named(bad: Tensor) -> None:
    with pytest.raises(CodecError, match=r"'layer\.0\.bad'"):
        UpdateCodec().encode({"good": torch.ones(2), "layer.0.bad": bad})


@pytest.mark.parametrize("energy", [0.0, -1.0, 1.1, float("nan")])
def test_energy_out_of_range_is_refused(energy: float) -> None:
    with pytest.raises(CodecError, match="energy"):
        UpdateCodec(energy)


def test_header_is_a_few_bytes_a_tensor() -> None:
    names = [
        f"encoder.layer.{layer}.{part}.{kind}"
        for layer in range(2)
        for part in ("attention.self.query", "attention.self.key", "intermediate.dense", "output.dense")
        for kind in ("weight", "bias")
    ]
    encoded = UpdateCodec().encode({name: low_rank(16, 16) for name in names})
    assert encoded.header_nbytes <= 15 * len(names)


def test_codec_needs_neither_flower_nor_transformers() -> None:
    check = "import sys, fedkd_flwr.codec; sys.exit(bool({'flwr', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
