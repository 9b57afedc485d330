"""How fast models learn, and how much they learn from each other, over the rounds of a run."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from fedkd_flwr.config.groups import DistillationConfig
from fedkd_flwr.distillation.losses import Weights

_EARLY = 48
"""Local steps of a run after which, with `train.learning-rate-decay = "staged"`, the rates of shared parameters begin
to fall; by measurement (docs/results/rates.md)."""


_WARM_UP = 40
"""Local steps of a run in which terms of the adaptive loss grow, round by round, from nothing to their weights."""


class Rate(NamedTuple):
    """How fast a parameter learns.

    Attributes:
        full: its learning rate.
        settling: the last so many local steps of a run over which its rate falls linearly to nothing; 0: never.
    """

    full: float
    settling: int = 0

    def share(self, left: float) -> float:
        """The share of the full rate in a step after which `left` - 1 are still to come in the run."""
        return min(1.0, left / self.settling) if self.settling else 1.0


@dataclass(frozen=True)
class Schedule:
    """How learning rates fall over the rounds of a run.

    Shared parameters are averaged over the clients, which takes away much of the noise of single steps. Private ones
    are not, so their rates fall round by round. Over many steps, shared parameters must settle, too, and smaller
    updates fit their budget better: once they have come far enough, their rates fall step by step.

    Attributes:
        decay: as above, or no rate falls.
        rounds: rounds of the run.
        steps: local steps of a round at this client.
    """

    decay: Literal["never", "staged"]
    rounds: int
    steps: int

    def rates(self, first: Mapping[str, float], private: Collection[str], round: int) -> dict[str, Rate]:
        """The rates of one round, by parameter.

        Args:
            first: those of the first round.
            private: names of the parameters that are never sent.
            round: from 1.
        """
        left = 1.0 if self.decay == "never" else (self.rounds + 1 - round) / self.rounds
        return {
            name: Rate(rate * left) if name in private else Rate(rate, self._settling) for name, rate in first.items()
        }

    def steps_left(self, round: int) -> int:
        """Local steps of the run from the start of a round on, from 1."""
        return (self.rounds + 1 - round) * self.steps

    def own_share(self, most: float, round: int) -> float:
        """How much of its own values of shared layers a teacher keeps, out of training; the rest is the mean.

        A teacher's upper layers count on their client's own lower ones. At full rates those are full of noise, which
        the mean takes away: a teacher keeps as much of `most` as the rates of shared parameters have fallen by.
        (Interpolated weights: WiSE-FT, Wortsman et al. 2022; of federated and local models: APFL, Deng et al. 2020.)

        Args:
            most: the share once these rates have fallen to nothing.
            round: the last in which the client trained; 0: none.
        """
        if not round:
            return 0.0
        return most * (1.0 - Rate(1.0, self._settling).share((self.rounds - round) * self.steps))

    @property
    def _settling(self) -> int:
        """The last local steps of a run, in which the rates of shared parameters fall to nothing; 0: they do not."""
        return 0 if self.decay == "never" else max(0, self.rounds * self.steps - _EARLY)


def loss_weights(distillation: DistillationConfig) -> Weights:
    """The weight of each distillation term once it has grown."""
    return Weights(
        teacher_kl=distillation.strength * distillation.teacher_kl,
        student_kl=distillation.strength * distillation.student_kl,
        hidden=distillation.strength * distillation.hidden,
        attention=distillation.strength * distillation.attention,
    )


def used_up(passes: float) -> float:
    """The share of the labels that a client has learnt from so far which it had learnt from before, in [0, 1).

    A label that is new says more than a student can. One that the teacher has fitted says nothing more, while the
    student, a mean over all clients, has not fitted it: so a teacher listens to its student as far as its own labels
    are used up (docs/results/few-labels.md).

    Args:
        passes: over the client's training examples, 1.5 say, with those of the round that begins.
    """
    return 1.0 - 1.0 / max(1.0, passes)


def grown(distillation: DistillationConfig, round: int, steps: int, passes: float) -> Weights:
    """The weight of each distillation term in one round.

    With the adaptive loss, terms grow: immature models do not teach, and a teacher listens as far as its client's
    labels are used up.

    Args:
        distillation: the loss, and the weights once they have grown.
        round: from 1.
        steps: local steps of a round.
        passes: over the client's training examples by the end of this round.
    """
    weights = loss_weights(distillation)
    if distillation.loss != "adaptive":
        return weights
    early = weights.scaled(min(1.0, (round - 1) * steps / _WARM_UP))
    return replace(early, teacher_kl=weights.teacher_kl * used_up(passes))
