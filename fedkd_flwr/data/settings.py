"""How a run reads its data: the keys that decide on a node's examples."""

from dataclasses import dataclass
from typing import Self

from fedkd_flwr.config.groups import DataConfig
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.config.tasks import TASKS, TaskSpec


@dataclass(frozen=True)
class DataSettings:
    """What reading, sharing out and splitting data go by.

    Attributes:
        data: the group of keys on data.
        task: name of the task.
        seed: decides what is drawn.
    """

    data: DataConfig
    task: str
    seed: int

    @classmethod
    def of(cls, config: RunConfig) -> Self:
        """Those of a run."""
        return cls(config.data, config.task, config.seed)

    @property
    def spec(self) -> TaskSpec:
        """What the task says about itself."""
        return TASKS[self.task]
