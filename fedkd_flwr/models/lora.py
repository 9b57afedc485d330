"""Low-rank adapters (LoRA, Hu et al., arXiv:2106.09685) in place of layers that would learn, by `peft`."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from torch.nn import Parameter

from fedkd_flwr.errors import ModelError, StateError
from fedkd_flwr.runtime.disk import replacing

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel

_NAME = "default"
_ADAPTER = ".lora_"
"""What only names of an adapter's parameters hold."""

_RATE = 5.0
"""Learning rate of an adapter divided by that of the layer that it is on: at the same rate it learns too slowly
(docs/results/adapters.md)."""


def add_adapters(model: "PreTrainedModel", replaced: Iterable[Parameter], rank: int, seed: int) -> None:
    """Freeze parameters of an encoder, and put an adapter on each linear layer of which the weights are among them.

    The head, and other parameters of the encoder, learn as before. An adapter adds nothing before it has learnt.

    Args:
        model: it is changed in place.
        replaced: what learns no more, as far as it is in the model's encoder.
        rank: of the adapters; their scale is 2.
        seed: determines the new weights; the global random state is left as it was.

    Raises:
        ModelError: `peft` is not installed, or there is nothing to put an adapter on.
    """
    try:
        from peft import inject_adapter_in_model
    except ImportError:
        raise ModelError(
            f"key 'model.lora-rank' is {rank} and needs the package peft: run pip install 'fedkd-flwr[lora]', or do "
            "without adapters"
        ) from None
    from transformers.pytorch_utils import Conv1D

    frozen = {id(parameter) for parameter in replaced} & {id(parameter) for parameter in model.base_model.parameters()}
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    targets = [name for name, module in linear.items() if id(module.weight) in frozen]
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not targets:
        raise ModelError(
            f"a {model.config.model_type} has no linear layers of its own for adapters (model.lora-rank is {rank}): do "
            "without them"
        )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(action="ignore"):  # of a Conv1D's transposed weight
        torch.manual_seed(seed)
        inject_adapter_in_model(_lora(rank, targets), model, _NAME)
    for parameter in learning:
        parameter.requires_grad_(id(parameter) not in frozen)


def learning_rate_factor(name: str) -> float:
    """The learning rate of the parameter of this name divided by that of a layer in its place."""
    return _RATE if _ADAPTER in name else 1.0


def store_frozen_as(model: nn.Module, dtype: torch.dtype) -> None:
    """Keep the matrices under adapters as autocast would convert them anyway: half the memory, the same outputs."""
    for _, layer in _adapted(model):
        layer.get_base_layer().to(dtype)  # type: ignore[operator]


def has_adapters(model: nn.Module) -> bool:
    """Tell whether there are adapters in a model."""
    return bool(_adapted(model))


def export_adapters(encoder: nn.Module, folder: Path, base: str) -> None:
    """Write the adapters of an encoder in the format of `peft`, whole or not at all.

    `PeftModel.from_pretrained(AutoModel.from_pretrained(base), folder)` is then that encoder. The head is not in it.

    Args:
        encoder: with adapters.
        folder: where to.
        base: what the folder calls the checkpoint under the adapters.

    Raises:
        StateError: the disk refuses.
    """
    weights = {
        f"base_model.model.{name.replace(f'.{_NAME}.', '.')}": tensor
        for name, tensor in encoder.state_dict().items()
        if _ADAPTER in name
    }
    (rank,) = {len(tensor) for name, tensor in weights.items() if ".lora_A." in name}
    config = _lora(rank, [name for name, _ in _adapted(encoder)])
    config.base_model_name_or_path, config.inference_mode = base, True
    try:
        with replacing(folder) as fresh:
            config.save_pretrained(str(fresh))
            save_file(weights, fresh / "adapter_model.safetensors")
    except (OSError, SafetensorError) as error:
        raise StateError(f"cannot write the adapters {folder}: {error}; free space, or choose another folder") from None


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Inside, the model has plain float32 layers with the adapters added to them; outside it is as it was.

    The plain layers lie in the CPU's memory: the device's may have no room for them.
    """
    adapted = _adapted(model)
    for name, layer in adapted:
        model.set_submodule(name, _plain(layer))
    try:
        yield
    finally:
        for name, layer in adapted:
            model.set_submodule(name, layer)


def _lora(rank: int, targets: list[str]) -> "LoraConfig":
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets)


def _adapted(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, module) for name, module in model.named_modules() if hasattr(module, "get_delta_weight")]


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
