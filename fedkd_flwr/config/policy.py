"""What the owner of a node allows: which runs may use their data, and what of it may leave. No message changes it."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedkd_flwr.config.groups import kebab
from fedkd_flwr.errors import ConfigError

OFF = "off"
"""The value of node-config key `policy` that allows everything."""

Names = Annotated[tuple[str, ...], Field(strict=False)]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=kebab, allow_inf_nan=False)


class RunLimits(_Group):
    """How much a run may be, and how many there may be.

    Attributes:
        tasks: that a run may have; empty: any.
        max_rounds: of a run.
        max_runs_a_day: that may begin within 24 hours, each counted once.
        max_bytes_a_run: that leave this node for a run.
        max_answers: updates and scores of this node that a run may get, repeats among them.
    """

    tasks: Names = ()
    max_rounds: int = Field(default=500, ge=1)
    max_runs_a_day: int = Field(default=20, ge=1)
    max_bytes_a_run: int = Field(default=500_000_000, ge=1)
    max_answers: int = Field(default=1200, ge=1)


class DataLimits(_Group):
    """What of the data a run may name.

    Attributes:
        columns: that a run may read; empty: any.
        labels: that a run must have, in any order; empty: any that it names.
    """

    columns: Names = ()
    labels: Names = ()


class TrainingLimits(_Group):
    """How a run may train: what keeps single examples from being read off an update.

    The defaults are by measurement (docs/results/privacy.md).

    Attributes:
        max_learning_rate: of any group of parameters, factors included.
        min_grad_norm: the least `train.max-grad-norm`; 0, which never clips, is allowed.
        min_batch_size: examples of an optimiser step, all its batches together.
        min_examples: training examples that take part in one update at least.
        min_length: tokens that a run must read of a text at least, `model.max-length`: fewer are easier to tell apart.
        max_epochs: passes over the training examples in one round.
        max_class_weight: how much more an example may weigh in the loss than one of another class.
    """

    max_learning_rate: float = Field(default=0.05, gt=0)
    min_grad_norm: float = Field(default=0.1, ge=0)
    min_batch_size: int = Field(default=8, ge=1)
    min_examples: int = Field(default=256, ge=1)
    min_length: int = Field(default=32, ge=1)
    max_epochs: int = Field(default=20, ge=1)
    max_class_weight: float = Field(default=100.0, ge=1)


class UpdateLimits(_Group):
    """What an update may hold.

    Attributes:
        min_compression: an update is at least so many times smaller than as float32.
    """

    min_compression: float = Field(default=128.0, ge=1)


class ScoreLimits(_Group):
    """What of a node's scores and counts may leave.

    Attributes:
        metrics: that may leave; empty: all.
        min_held_out: held-out examples that a score needs.
        min_cell: labels with fewer examples are not told apart.
        digits: decimals of a score.
        training_losses: whether the losses of training may leave.
    """

    metrics: Names = ()
    min_held_out: int = Field(default=20, ge=1)
    min_cell: int = Field(default=10, ge=1)
    digits: int = Field(default=3, ge=1, le=17)
    training_losses: bool = False


class Policy(_Group):
    """A node's policy; without a file of the owner it has these defaults."""

    runs: RunLimits = RunLimits()
    data: DataLimits = DataLimits()
    training: TrainingLimits = TrainingLimits()
    update: UpdateLimits = UpdateLimits()
    scores: ScoreLimits = ScoreLimits()

    @classmethod
    def read(cls, path: Path) -> "Policy":
        """The policy in a TOML file.

        Raises:
            ConfigError: it cannot be read, or a key is unknown or out of range; names file and key.
        """
        try:
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except ValidationError as error:
            found = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise ConfigError(f"policy {path}: {found}") from None
        except (OSError, ValueError) as error:
            raise ConfigError(f"policy {path}: cannot be read as TOML: {error}") from None


def policy_of(node_config: Mapping[str, Any]) -> Policy | None:
    """What a node's owner allows.

    Returns:
        Of a node with data of its own (`data-path`) the policy in the file that node-config key `policy` names, or the
        default one; None where the key is "off", or the node is simulated.

    Raises:
        ConfigError: as `Policy.read`.
    """
    chosen = str(node_config.get("policy", ""))
    if "data-path" not in node_config or chosen == OFF:
        return None
    return Policy.read(Path(chosen)) if chosen else Policy()
