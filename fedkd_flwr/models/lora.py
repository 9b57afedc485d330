"""Low-rank adapters (LoRA, Hu et al., arXiv:2106.09685) in place of a teacher's private layers, by `peft`."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import Parameter

from fedkd_flwr.distillation import Pair
from fedkd_flwr.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NAME = "default"


def add_adapters(pair: Pair, teacher: "PreTrainedModel", rank: int, seed: int) -> None:
    """Freeze what of the teacher's encoder stays at the node, and put an adapter on each of its linear layers.

    Heads, and layers that are the student's too, learn as before. An adapter adds nothing before it has learnt.

    Args:
        pair: of this teacher.
        teacher: it is changed in place.
        rank: of the adapters; their scale is 2.
        seed: determines the new weights; the global random state is left as it was.

    Raises:
        ModelError: `peft` is not installed, or there is nothing to put an adapter on.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ModelError(
            "key 'model.teacher-lora-rank' needs the package peft: run pip install 'fedkd-flwr[lora]', or set it to 0"
        ) from None
    from transformers.pytorch_utils import Conv1D

    private = {id(parameter) for parameter in pair.local().values()}
    private &= {id(parameter) for parameter in teacher.base_model.parameters()}
    linear = {name: module for name, module in teacher.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    targets = [name for name, module in linear.items() if id(module.weight) in private]
    learning = [parameter for parameter in teacher.parameters() if parameter.requires_grad]
    if not targets:
        raise ModelError(
            f"a {teacher.config.model_type} has no linear layers of its own for adapters: set "
            "model.teacher-lora-rank to 0"
        )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(action="ignore"):  # of a Conv1D's transposed weight
        torch.manual_seed(seed)
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets), teacher, _NAME)
    for parameter in learning:
        parameter.requires_grad_(id(parameter) not in private)


def store_frozen_as(teacher: nn.Module, dtype: torch.dtype) -> None:
    """Keep the matrices under adapters as autocast would convert them anyway: half the memory, the same outputs."""
    for _, layer in _adapted(teacher):
        layer.get_base_layer().to(dtype)  # type: ignore[operator]


@contextmanager
def merged(teacher: nn.Module) -> Iterator[None]:
    """Inside, the teacher has plain float32 layers with the adapters added to them; outside it is as it was.

    The plain layers lie in the CPU's memory: the device's may have no room for them.
    """
    adapted = _adapted(teacher)
    for name, layer in adapted:
        teacher.set_submodule(name, _plain(layer))
    try:
        yield
    finally:
        for name, layer in adapted:
            teacher.set_submodule(name, layer)


def _adapted(teacher: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, module) for name, module in teacher.named_modules() if hasattr(module, "get_delta_weight")]


@torch.no_grad()
def _plain(layer: nn.Module) -> nn.Module:
    base: nn.Module = layer.get_base_layer()  # type: ignore[operator]
    plain = copy(base)
    plain._parameters = {
        name: p if p is None else Parameter(p.detach().to("cpu", torch.float32, copy=True))
        for name, p in base._parameters.items()
    }
    plain.weight.add_(layer.get_delta_weight(_NAME).float().cpu())  # type: ignore[operator]
    return plain
