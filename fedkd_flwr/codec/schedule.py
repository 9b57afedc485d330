"""Schedules over a training: the energy to keep, and the bytes to spend."""

from dataclasses import dataclass
from typing import Self

from fedkd_flwr.codec.allocation import Budget
from fedkd_flwr.errors import CodecError


@dataclass(frozen=True)
class EnergySchedule:
    """T(t) = start + (end - start) t: coarse early, fine late (FedKD, Eq 9).

    Args:
        start: the energy share at t = 0.
        end: the energy share at t = 1.
    """

    start: float
    end: float

    def __call__(self, progress: float) -> float:
        """The energy to keep at t = `progress`; exactly `start` at 0 and `end` at 1.

        Args:
            progress: share of the training that is done, in [0, 1].

        Raises:
            CodecError: `progress` is not in [0, 1].
        """
        if not 0 <= progress <= 1:
            raise CodecError(f"the share of the training that is done must be in [0, 1], got {progress}")
        if progress < 0.5:  # from the nearer end, so that both ends are exact
            return self.start + (self.end - self.start) * progress
        return self.end - (self.end - self.start) * (1 - progress)


@dataclass(frozen=True)
class BudgetSchedule:
    """Bytes for all updates of a run in one direction, shared out over its rounds to the last byte.

    Args:
        nbytes: of the whole run, at least one a round.
        rounds: of the run.

    Raises:
        CodecError: an argument is out of range.
    """

    nbytes: int
    rounds: int

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise CodecError(f"a schedule needs rounds, got {self.rounds}")
        for round in range(1, self.rounds + 1):
            self(round)

    @classmethod
    def of_ratio(cls, ratio: float, dense_nbytes: int, rounds: int) -> Self:
        """The schedule that has `dense_nbytes` / `ratio` bytes for a round, on average.

        Args:
            ratio: how many times fewer bytes are sent than dense, 1 or more.
            dense_nbytes: of one update as float32.
            rounds: of the run.

        Raises:
            CodecError: an argument is out of range.
        """
        if not 1 <= ratio < float("inf"):
            raise CodecError(f"the ratio of dense bytes to sent bytes must be at least 1, got {ratio}")
        return cls(int(dense_nbytes / ratio * rounds), rounds)

    def __call__(self, round: int) -> Budget:
        """The budget of one round, counted from 1.

        Raises:
            CodecError: the run has no such round.
        """
        if not 1 <= round <= self.rounds:
            raise CodecError(f"the schedule has rounds 1 to {self.rounds}, not {round}")
        return Budget(self._until(round) - self._until(round - 1))

    def _until(self, round: int) -> int:
        return self.nbytes * round // self.rounds
