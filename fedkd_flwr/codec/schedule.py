"""How much energy an update keeps as the training goes on (FedKD, Eq 9)."""

from dataclasses import dataclass

from fedkd_flwr.errors import CodecError


@dataclass(frozen=True)
class EnergySchedule:
    """T(t) = start + (end - start) t: coarse early, fine late.

    Args:
        start: the energy share at t = 0.
        end: the energy share at t = 1.
    """

    start: float
    end: float

    def __call__(self, share: float) -> float:
        """The energy to keep when `share` of the training is done; exactly `start` at 0 and `end` at 1.

        Raises:
            CodecError: `share` is not in [0, 1].
        """
        if not 0 <= share <= 1:
            raise CodecError(f"the share of the training that is done must be in [0, 1], got {share}")
        if share < 0.5:
            return self.start + (self.end - self.start) * share
        return self.end - (self.end - self.start) * (1 - share)
