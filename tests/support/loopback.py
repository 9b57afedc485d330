"""The federation of `fedkd_flwr.simulation` with faults, and a log of what was sent."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flwr.app import Message, RecordDict

from fedkd_flwr.simulation import InProcessGrid, run_federation

Fault = Callable[[Message, Callable[[], Message | None]], Message | None]


class LoopbackGrid(InProcessGrid):
    """Delivers each message to the ClientApp at once.

    `fault`, where set, sees every message before its node does and may answer in its place (None: lost).
    """

    def __init__(self, run_config: dict[str, Any], node_configs: Iterable[dict[str, Any]], first_id: int = 100) -> None:
        super().__init__(run_config, node_configs, first_id)
        self.fault: Fault | None = None
        self.log: list[tuple[int, str, RecordDict]] = []

    def _deliver(self, message: Message) -> Message | None:
        self.log.append((message.metadata.dst_node_id, message.metadata.message_type, message.content))
        answer = super()._deliver
        return self.fault(message, lambda: answer(message)) if self.fault else answer(message)


def run_server(grid: LoopbackGrid) -> Path:
    """Run the real ServerApp on `grid`; returns the run's folder."""
    return run_federation(grid)
