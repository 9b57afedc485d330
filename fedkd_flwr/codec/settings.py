"""Which codec the updates of a round go through: from the run config to the codec's own types."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, floor
from typing import Literal

from torch import Tensor

from fedkd_flwr.codec import (
    Allocation,
    Budget,
    BudgetSchedule,
    CodecError,
    EncodedUpdate,
    Energy,
    EnergySchedule,
    Uniform,
    UpdateCodec,
)
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import ConfigError

_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class CodecSettings:
    """How the updates of a round are encoded: by the run config, at node and server alike; no message says it.

    Attributes:
        energy: T(t), which each matrix keeps (FedKD, Eq 9), where there is nothing else.
        budget: bytes of a whole encoded update.
        numbers: all are sent, as they are or rotated.
        bits: of each number; None: what the allocation thinks best.
        feedback_up: a node adds what its last encodings dropped.
    """

    energy: float = 1.0
    budget: int | None = None
    numbers: Literal["dense", "rotated"] | None = None
    bits: int | None = None
    feedback_up: bool = False


def codec_settings(config: RunConfig, round: int, student_bytes: int) -> CodecSettings:
    """What a round's updates may cost or must keep.

    Args:
        config: of the run.
        round: from 1.
        student_bytes: of sending the shared tensors as float32.

    Raises:
        ConfigError: the budget leaves nothing for a round.
    """
    feedback = config.codec.error_feedback
    settings = CodecSettings(bits=config.codec.bits or None, feedback_up=feedback in ("up", "both"))
    codec = config.codec_kind
    if codec in ("dense", "rotated"):
        return replace(settings, numbers="dense" if codec == "dense" else "rotated")
    if codec == "energy":
        share = (round - 1) / max(1, config.num_rounds - 1)
        energy = EnergySchedule(config.codec.energy_start, config.codec.energy_end)(share)
        return replace(settings, energy=energy)
    nbytes = _budget_schedule(config, student_bytes)(round).nbytes
    return replace(settings, budget=min(nbytes, student_bytes))


def require_budget(config: RunConfig, shared: Mapping[str, Tensor]) -> None:
    """Whether each round's budget holds at least the names and shapes of what travels.

    Raises:
        ConfigError: one does not; says the least that would do.
    """
    codec = config.codec_kind
    if codec != "budget" or not shared:
        return
    dense = sum(4 * tensor.numel() for tensor in shared.values())
    least = EncodedUpdate.least_nbytes(shared)
    smallest = _smallest(config, dense)
    if smallest >= least:
        return
    number, unit, run = _parsed(config.codec.budget)
    scale = least / smallest if smallest else 1.0
    while _smallest(config.changed(codec={"budget": _written(number, unit, run, scale)}), dense) < least:
        scale *= 1.02
    raise ConfigError(
        f"run-config key 'codec.budget' is {config.codec.budget!r}, which gives a round {smallest} bytes: the "
        "names and shapes of "
        f"the {len(shared)} tensors that travel alone take {least}. Set it to "
        f"{'at most' if unit == 'x' else 'at least'} {_written(number, unit, run, scale)}"
    )


def build_codec(settings: CodecSettings) -> UpdateCodec:
    """The codec of these settings."""
    allocation: Allocation
    if settings.numbers is not None:
        allocation = Uniform(rotated=settings.numbers == "rotated")
    elif settings.budget is not None:
        allocation = Budget(settings.budget)
    else:
        allocation = Energy(settings.energy)
    return UpdateCodec(allocation=allocation, bits=settings.bits)


def _budget_schedule(config: RunConfig, student_bytes: int) -> BudgetSchedule:
    rounds = config.num_rounds
    number, unit, run = _parsed(config.codec.budget)
    of_round = student_bytes / number if unit == "x" else number * _UNITS[unit]
    nbytes = of_round if run else of_round * rounds
    if nbytes < rounds:
        raise ConfigError(f"run-config key 'codec.budget' is {config.codec.budget!r}: that is less than a byte a round")
    return BudgetSchedule(int(nbytes), rounds)


def _smallest(config: RunConfig, student_bytes: int) -> int:
    """The smallest budget of a round; 0: one would get nothing."""
    try:
        schedule = _budget_schedule(config, student_bytes)
    except (ConfigError, CodecError):
        return 0
    return min(schedule(round).nbytes for round in range(1, config.num_rounds + 1))


def _parsed(budget: str) -> tuple[float, str, str]:
    """Number, unit and "/run" or "" of a budget."""
    match = re.fullmatch(r"([0-9.]+)(x|[kMG]?B)(/run)?", budget)
    assert match is not None, "the config has been validated"
    return float(match[1]), match[2], match[3] or ""


def _written(number: float, unit: str, run: str, scale: float) -> str:
    """A budget that is so many times larger, rounded to its larger side."""
    if unit == "x":
        return f"{max(0.1, floor(10 * number / scale) / 10):g}x"
    return f"{ceil(number * _UNITS[unit] * scale)}B{run}"
