"""A federation in one process: Flower's messages, the real apps, no Ray and no sockets."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

import client_app
import server_app

Handler = Callable[[Message, Context], Message]
Fault = Callable[[Message, Callable[[], Message]], Message | None]


class LoopbackGrid(Grid):
    """Delivers each message to the ClientApp at once.

    `fault`, where set, sees every message before its node does and may answer in its place (None: lost).
    """

    def __init__(self, run_config: dict[str, Any], node_configs: Iterable[dict[str, Any]], first_id: int = 100) -> None:
        self.run_config = run_config
        self.nodes = {first_id + i: dict(node) for i, node in enumerate(node_configs)}
        self.fault: Fault | None = None
        self.log: list[tuple[int, str, RecordDict]] = []
        self._replies: dict[str, Message] = {}
        self._count = 0

    def set_run(self, run: Run) -> None:
        raise AssertionError("not used")

    @property
    def run(self) -> Run:
        raise AssertionError("not used")

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            self._count += 1
            message.metadata.__dict__["_message_id"] = f"message-{self._count}"
            ids.append(message.metadata.message_id)
            self.log.append((message.metadata.dst_node_id, message.metadata.message_type, message.content))

            def deliver(message: Message = message) -> Message:
                return self._deliver(message)

            reply = self.fault(message, deliver) if self.fault else deliver()
            if reply is not None:
                self._replies[message.metadata.message_id] = reply
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(i) for i in list(message_ids) if i in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self.pull_messages(self.push_messages(messages))

    def _deliver(self, message: Message) -> Message:
        node_id = message.metadata.dst_node_id
        if node_id not in self.nodes:
            return Message(Error(code=5, reason="node unavailable"), reply_to=message)
        context = Context(
            run_id=1,
            node_id=node_id,
            node_config=self.nodes[node_id],
            state=RecordDict(),
            run_config=self.run_config,
        )
        return client_app.app(message, context)


def run_server(grid: LoopbackGrid) -> Path:
    """Run the real ServerApp on `grid`; returns the run's folder."""

    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=grid.run_config)
    server_app.main(grid, context)
    config = grid.run_config
    return Path(config["run.resume"] or Path(config["run.runs-dir"]) / config["run.name"])
