import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor

from fedkd_flwr.codec import Budget, CodecError, ErrorFeedback, UpdateCodec, host
from fedkd_flwr.codec.host import finite_float32, on_host, to_host

Copy = Callable[[Sequence[Tensor]], list[Any]]
COPYING = [("host", "to_host"), ("error_feedback", "to_host"), ("spectrum", "to_host"), ("spectrum", "on_host")]


def test_what_is_on_the_cpu_stays_itself() -> None:
    tensors = [torch.ones(2, 3), torch.zeros(0), torch.tensor(1.5)]
    assert all(moved is tensor for moved, tensor in zip(to_host(tensors), tensors, strict=True))
    assert to_host([]) == on_host([]) == []
    assert [numbers.tolist() for numbers in on_host(tensors)] == [[1.0] * 6, [], [1.5]]


def test_tensors_are_checked_by_name() -> None:
    for bad in (torch.tensor([1]), torch.tensor([1j]), torch.tensor([True])):
        with pytest.raises(CodecError, match="'w'"):
            finite_float32({"v": torch.ones(1), "w": bad})
    for number in (float("nan"), float("inf"), 1e39):
        with pytest.raises(CodecError, match="'w'"):
            finite_float32({"v": torch.ones(1), "w": torch.tensor([number], dtype=torch.float64)})


def update(matrices: int) -> dict[str, Tensor]:
    """As many vectors, and matrices that are worth factors."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for number in range(matrices):
        left, right = (torch.randn(shape, generator=generator) for shape in ((96, 6), (6, 64)))
        found |= {f"{number}.weight": left @ right, f"{number}.bias": torch.randn(64, generator=generator)}
    return found


CODECS = pytest.mark.parametrize(
    "codec",
    [
        UpdateCodec(0.9),
        UpdateCodec(1 - 1e-8),
        UpdateCodec(allocation=Budget(20_000)),
    ],
    ids=["energy", "energy that float32 cannot tell", "budget"],
)


def counted(copy: Copy, calls: list[Copy]) -> Copy:
    def counting(tensors: Sequence[Tensor]) -> list[Any]:
        calls.append(copy)
        return copy(tensors)

    return counting


@CODECS
def test_copies_to_the_cpu_are_not_made_for_each_tensor(codec: UpdateCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that leave a GPU go through these; 12 matrices more must not add 12 of them."""
    copies = {}
    for matrices in (4, 16):
        calls: list[Copy] = []
        for module, name in COPYING:
            owner = import_module(f"fedkd_flwr.codec.{module}")
            monkeypatch.setattr(owner, name, counted(getattr(host, name), calls))
        encoded, _ = ErrorFeedback(codec).encode(update(matrices), {})
        assert {row.kind for row in encoded.rows()} >= {"factored"}
        copies[matrices] = len(calls)
    assert copies[4] >= 4 and copies[16] <= copies[4] + 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@CODECS
def test_a_gpu_is_not_waited_for_at_each_tensor(codec: UpdateCodec) -> None:
    waits = {}
    for matrices in (4, 16):
        tensors = {name: tensor.cuda() for name, tensor in update(matrices).items()}
        residual = {name: torch.zeros(tensor.shape) for name, tensor in tensors.items()}
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            encoded, _ = ErrorFeedback(codec).encode(tensors, residual)
        torch.cuda.set_sync_debug_mode("default")
        waits[matrices] = sum("synchronizing" in str(warning.message) for warning in caught)
        on_cpu = codec.encode(update(matrices))
        assert encoded.nbytes == pytest.approx(on_cpu.nbytes, rel=0.01)
    assert waits[16] <= waits[4] + 4
