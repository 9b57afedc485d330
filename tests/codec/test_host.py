import warnings

import pytest
import torch
from torch import Tensor

from fedkd_flwr.codec import Budget, ErrorFeedback, TotalEnergy, UpdateCodec
from fedkd_flwr.codec.host import on_host, to_host


def test_what_is_on_the_cpu_stays_itself() -> None:
    tensors = [torch.ones(2, 3), torch.zeros(0), torch.tensor(1.5)]
    assert all(moved is tensor for moved, tensor in zip(to_host(tensors), tensors, strict=True))
    assert to_host([]) == on_host([]) == []
    assert [numbers.tolist() for numbers in on_host(tensors)] == [[1.0] * 6, [], [1.5]]


def update(matrices: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [shape for _ in range(matrices) for shape in ((96, 64), (64,))]
    return {str(number): torch.randn(shape, generator=generator) for number, shape in enumerate(shapes)}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    "codec",
    [UpdateCodec(0.9), UpdateCodec(allocation=TotalEnergy(0.9)), UpdateCodec(allocation=Budget(20_000))],
    ids=["energy", "total energy", "budget"],
)
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
