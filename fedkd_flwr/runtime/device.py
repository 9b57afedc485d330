"""Where a node computes: device, precision and CPU threads."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from threadpoolctl import threadpool_limits

from fedkd_flwr.errors import DeviceError
from fedkd_flwr.runtime.cpus import available_cpus

_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Device:
    """The device, and the dtype of mixed precision (None: float32 throughout)."""

    device: torch.device
    autocast: torch.dtype | None = None

    @property
    def name(self) -> str:
        """A GPU's model, or "cpu"."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"

    def __str__(self) -> str:
        precision = {dtype: key for key, dtype in _DTYPES.items()}[self.autocast]
        return f"{self.name}, {precision}, {torch.get_num_threads()} CPU threads"


def choose_device(device: Literal["auto", "cpu", "cuda"], precision: Literal["auto", "fp32", "bf16", "fp16"]) -> Device:
    """What the config asks for; `auto` takes a GPU where there is one, and bf16 where that can.

    Raises:
        DeviceError: no GPU is visible, or the device cannot compute in that precision.
    """
    gpu = torch.cuda.is_available()
    if device == "cuda" and not gpu:
        raise DeviceError(
            "run.device is 'cuda' but PyTorch sees no GPU here: install a CUDA build of torch, give the node a "
            "GPU (client-resources-num-gpus), or set run.device to 'auto' or 'cpu'"
        )
    chosen = torch.device("cuda" if gpu and device != "cpu" else "cpu")
    gpu_has_bf16 = chosen.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "auto":
        precision = "bf16" if gpu_has_bf16 else "fp32"
    if precision == "fp16" and chosen.type == "cpu":
        raise DeviceError(
            "run.precision is 'fp16' but the device is a CPU: set run.precision to 'auto', 'fp32' or 'bf16'"
        )
    if precision == "bf16" and chosen.type == "cuda" and not gpu_has_bf16:
        raise DeviceError("run.precision is 'bf16' but this GPU cannot: set run.precision to 'auto', 'fp32' or 'fp16'")
    return Device(chosen, _DTYPES[precision])


def set_threads(threads: int) -> None:
    """Let PyTorch and numpy use `threads` CPU threads; 0: those that a simulation gives this node, or all there are."""
    threads = threads or _simulation_cpus() or available_cpus()
    torch.set_num_threads(threads)
    threadpool_limits(threads)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, the random numbers of PyTorch follow from `seed`; the global random state is left as it was.

    Args:
        seed: at least 0.
        device: where numbers are drawn, besides the CPU.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _simulation_cpus() -> int:
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return 0
    return int(ray.get_runtime_context().get_assigned_resources().get("CPU", 0))
