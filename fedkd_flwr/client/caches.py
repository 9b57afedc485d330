"""What a process keeps between messages."""

from dataclasses import dataclass, field

from fedkd_flwr.client.model_cache import ModelCache
from fedkd_flwr.runtime.recent import Recent


@dataclass(frozen=True)
class Caches:
    """What the clients that a process serves in turn have in common; the entry of the process owns one.

    Attributes:
        models: the pair that was used last.
        tasks: the tasks, with their tokenizers, that were used last; clients with the same labels have the same.
        data: the data sets that were read last, and how they are shared out.
    """

    models: ModelCache = field(default_factory=ModelCache)
    tasks: Recent = field(default_factory=Recent)
    data: Recent = field(default_factory=Recent)
