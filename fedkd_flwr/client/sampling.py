"""How much a client trains in a round, on which of its examples, and from which random numbers."""

from dataclasses import dataclass
from math import ceil

import numpy as np

from fedkd_flwr.config.groups import TrainConfig
from fedkd_flwr.privacy.secret import Secret


@dataclass(frozen=True)
class RoundSize:
    """How much a client trains in one round.

    Attributes:
        examples: training examples; those that it has come again where these are more.
        steps: steps of the optimiser.
    """

    examples: int
    steps: int

    @classmethod
    def of(cls, train: TrainConfig, batch_norm: bool, held: int) -> "RoundSize":
        """The `held` training examples once, or as many examples as the local steps need.

        Batch normalisation needs two in a batch: one more is taken where one would be left over.

        Args:
            train: local steps, batch size, gradient accumulation.
            batch_norm: the models may have batch normalisation.
            held: training examples of the client.
        """
        examples = train.local_steps * train.gradient_accumulation * train.batch_size or held
        if batch_norm and examples % train.batch_size == 1:
            examples += 1
        return cls(examples, ceil(ceil(examples / train.batch_size) / train.gradient_accumulation))


@dataclass(frozen=True)
class Draws:
    """The random numbers of one client in one run: the same whenever it does the same thing again.

    Attributes:
        seed: the run's seed.
        stream: tells the clients of a run apart.
        secret: what the client's owner alone knows.
    """

    seed: int
    stream: int
    secret: Secret

    def of_round(self, round: int) -> np.random.SeedSequence:
        """The seed of the order of examples and of dropout in one round, from 1."""
        return np.random.SeedSequence([self.seed, round, self.stream, *self.secret.words("round")])

    def of_heads(self) -> np.random.Generator:
        """A generator for the examples to which new heads are fitted."""
        return np.random.default_rng([self.seed, 0, self.stream, *self.secret.words("heads")])

    @property
    def private_seed(self) -> int | None:
        """The seed of new weights that are never sent; None: the run's."""
        return self.secret.seed(f"weights of a run with seed {self.seed}")


def in_random_order(generator: np.random.Generator, held: int, wanted: int) -> list[int]:
    """Indices of `wanted` of the `held` examples: all of them in one random order after another."""
    order = np.concatenate([generator.permutation(held) for _ in range(ceil(wanted / held))])
    return [int(index) for index in order[:wanted]]
