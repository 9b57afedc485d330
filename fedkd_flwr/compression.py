"""Which codec the updates of a round go through: from the run config to the codec's own types."""

import re

from fedkd_flwr.codec import Allocation, Budget, BudgetSchedule, Energy, EnergySchedule, Uniform, UpdateCodec
from fedkd_flwr.config import RunConfig
from fedkd_flwr.errors import ConfigError
from fedkd_flwr.protocol import CodecSettings

_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}


def codec_settings(config: RunConfig, round: int, student_bytes: int) -> CodecSettings:
    """What a round's updates may cost or must keep.

    Args:
        config: of the run.
        round: from 1.
        student_bytes: of sending the shared tensors as float32.

    Raises:
        ConfigError: the budget leaves nothing for a round.
    """
    feedback = config.error_feedback
    settings = CodecSettings(bits=config.bits or None, feedback_up=feedback in ("up", "both"))
    codec = config.parts.codec if config.codec == "auto" else config.codec
    if codec in ("dense", "rotated"):
        return settings.model_copy(update={"numbers": codec})
    if codec == "energy":
        share = (round - 1) / max(1, config.num_rounds - 1)
        energy = EnergySchedule(config.energy_start, config.energy_end)(share)
        return settings.model_copy(update={"energy": energy})
    nbytes = _budget_schedule(config, student_bytes)(round).nbytes
    return settings.model_copy(update={"budget": min(nbytes, student_bytes)})


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
    match = re.fullmatch(r"([0-9.]+)(x|[kMG]?B)(/run)?", config.budget)
    assert match is not None, "the config has been validated"
    number, unit, of_run = float(match[1]), match[2], match[3]
    of_round = student_bytes / number if unit == "x" else number * _UNITS[unit]
    nbytes = of_round if of_run else of_round * rounds
    if nbytes < rounds:
        raise ConfigError(f"run-config key 'budget' is {config.budget!r}: that is less than a byte a round")
    return BudgetSchedule(int(nbytes), rounds)
