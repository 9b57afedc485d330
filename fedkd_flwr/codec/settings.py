"""Which codec the updates of a round go through: from the run config to the codec's own types."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, floor

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
from fedkd_flwr.config.codecs import CODECS
from fedkd_flwr.config.groups import CodecConfig, Value
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import ConfigError
from fedkd_flwr.runtime.registry import named_by

_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class CodecSettings:
    """How the updates of a round are encoded: by the run config, at node and server alike; no message says it.

    Attributes:
        allocation: who gets how many bytes.
        bits: of each number; None: what the allocation thinks best.
        feedback_up: a node adds what its last encodings dropped.
    """

    allocation: Allocation
    bits: int | None = None
    feedback_up: bool = False

    @property
    def energy(self) -> float:
        """T(t), which each matrix keeps (FedKD, Eq 9), where there is nothing else."""
        return self.allocation.share if isinstance(self.allocation, Energy) else 1.0

    @property
    def budget(self) -> int | None:
        """Bytes of a whole encoded update; None: nothing bounds them."""
        return self.allocation.nbytes if isinstance(self.allocation, Budget) else None

    def as_history(self) -> dict[str, Value | None]:
        """The settings as history.json holds them."""
        numbers = ("rotated" if self.allocation.rotated else "dense") if isinstance(self.allocation, Uniform) else None
        found = {"energy": self.energy, "budget": self.budget, "numbers": numbers}
        return {**found, "bits": self.bits, "feedback_up": self.feedback_up}


@dataclass(frozen=True)
class Moment:
    """A round of a run.

    Attributes:
        round: from 1.
        rounds: of the run.
        student_bytes: of sending the shared tensors as float32.
    """

    round: int
    rounds: int
    student_bytes: int


AllocationOf = Callable[[CodecConfig, Moment], Allocation]
"""A codec's own part, named by `CodecSpec.place`: what a round's updates may cost or must keep."""


def dense(config: CodecConfig, moment: Moment) -> Allocation:
    """All numbers, as they are."""
    return Uniform()


def rotated(config: CodecConfig, moment: Moment) -> Allocation:
    """All numbers, rotated first."""
    return Uniform(rotated=True)


def energy(config: CodecConfig, moment: Moment) -> Allocation:
    """The share of each matrix's energy that grows over the rounds (FedKD, Eq 9)."""
    share = (moment.round - 1) / max(1, moment.rounds - 1)
    return Energy(EnergySchedule(config.energy_start, config.energy_end)(share))


def budget(config: CodecConfig, moment: Moment) -> Allocation:
    """Bytes of an update, never more than it takes as float32.

    Raises:
        ConfigError: the budget leaves nothing for a round.
    """
    nbytes = _budget_schedule(config, moment.rounds, moment.student_bytes)(moment.round).nbytes
    return Budget(min(nbytes, moment.student_bytes))


def codec_settings(config: RunConfig, round: int, student_bytes: int) -> CodecSettings:
    """What a round's updates may cost or must keep.

    Args:
        config: of the run.
        round: from 1.
        student_bytes: of sending the shared tensors as float32.

    Raises:
        ConfigError: the budget leaves nothing for a round.
    """
    allocation_of: AllocationOf = named_by(CODECS[config.codec_kind].place)
    allocation = allocation_of(config.codec, Moment(round, config.num_rounds, student_bytes))
    return CodecSettings(allocation, config.codec.bits or None, config.codec.error_feedback in ("up", "both"))


def require_budget(config: RunConfig, shared: Mapping[str, Tensor]) -> None:
    """Whether each round's budget holds at least the names and shapes of what travels.

    Raises:
        ConfigError: one does not; says the least that would do.
    """
    if "codec.budget" not in CODECS[config.codec_kind].keys or not shared:
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
    return UpdateCodec(allocation=settings.allocation, bits=settings.bits)


def _budget_schedule(config: CodecConfig, rounds: int, student_bytes: int) -> BudgetSchedule:
    number, unit, run = _parsed(config.budget)
    of_round = student_bytes / number if unit == "x" else number * _UNITS[unit]
    nbytes = of_round if run else of_round * rounds
    if nbytes < rounds:
        raise ConfigError(f"run-config key 'codec.budget' is {config.budget!r}: that is less than a byte a round")
    return BudgetSchedule(int(nbytes), rounds)


def _smallest(config: RunConfig, student_bytes: int) -> int:
    """The smallest budget of a round; 0: one would get nothing."""
    try:
        schedule = _budget_schedule(config.codec, config.num_rounds, student_bytes)
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
