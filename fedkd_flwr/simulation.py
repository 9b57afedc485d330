"""A federation in this process: Flower's messages and the real apps, no Ray and no sockets."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedkd_flwr.client.app import app as client_app
from fedkd_flwr.server import app as server

_UNAVAILABLE = 5
"""Flower's code of the error that no such node is there."""


class InProcessGrid(Grid):
    """Hands a message to the ClientApp when its reply is asked for, one after the other."""

    def __init__(
        self,
        run_config: Mapping[str, Any],
        node_configs: Iterable[Mapping[str, Any]],
        first_id: int = 100,
    ) -> None:
        """Connect the nodes.

        Args:
            run_config: flat mapping of run-config keys, which all nodes are given.
            node_configs: node config of each node.
            first_id: Flower's id of the first node; the others follow.
        """
        self.run_config = dict(run_config)
        self.nodes = {first_id + i: dict(node) for i, node in enumerate(node_configs)}
        self._waiting: dict[str, Message] = {}
        self._count = 0

    def set_run(self, run: Run) -> None:
        """See `Grid`; there is one run only."""

    @property
    def run(self) -> Run:
        """See `Grid`; a run in this process has none."""
        raise NotImplementedError("a federation in this process has no record of its run")

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """See `Grid`."""
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """See `Grid`."""
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep messages until their replies are asked for; returns their ids."""
        ids = []
        for message in messages:
            self._count += 1
            message.metadata.__dict__["_message_id"] = f"message-{self._count}"
            ids.append(message.metadata.message_id)
            self._waiting[message.metadata.message_id] = message
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Let each node answer in turn, in the order of the messages; each reply comes once."""
        wanted = set(message_ids)
        for message in [message for key, message in self._waiting.items() if key in wanted]:
            del self._waiting[message.metadata.message_id]
            if (reply := self._deliver(message)) is not None:
                yield reply

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """See `Grid`; nothing is waited for."""
        return self.pull_messages(self.push_messages(messages))

    def _deliver(self, message: Message) -> Message | None:
        """The node's answer; None where it is lost."""
        node_id = message.metadata.dst_node_id
        if node_id not in self.nodes:
            return Message(Error(code=_UNAVAILABLE, reason="node unavailable"), reply_to=message)
        return client_app(message, _context(node_id, self.run_config, self.nodes[node_id]))


def run_federation(grid: InProcessGrid) -> Path:
    """Run the ServerApp on a grid.

    Returns:
        The run's folder.

    Raises:
        FedKDError: the run cannot be finished; says why and how it may go on.
    """
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1  # without one no message can be made
    return server.run(grid, grid.run_config)


def _context(node_id: int, run_config: Mapping[str, Any], node_config: Mapping[str, Any]) -> Context:
    return Context(
        run_id=1, node_id=node_id, node_config=dict(node_config), state=RecordDict(), run_config=dict(run_config)
    )
