"""Flower's Grid without the waits that have no end."""

import time
from collections.abc import Callable, Iterable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

_POLL_SECONDS = 0.5


class ReliableGrid(Grid):
    """Wraps a Grid: a message that could not be pushed is not waited for, and replies are taken at once.

    (Flower's `send_and_receive` waits the whole timeout where a push failed, and polls every 3 s.)
    """

    def __init__(self, grid: Grid, heard: Callable[[Message], None]) -> None:
        """Wrap a grid.

        Args:
            grid: leads to the nodes.
            heard: is given each reply of `send_and_receive` as it comes in.
        """
        self._grid, self._heard = grid, heard

    def set_run(self, run: Run) -> None:
        """See `Grid`."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """See `Grid`."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """See `Grid`."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """See `Grid`."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """See `Grid`."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """See `Grid`."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """The replies that come within `timeout` seconds, at most one to each message."""
        waiting = {message_id for message_id in self.push_messages(list(messages)) if message_id}
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        replies: list[Message] = []
        while waiting:
            for reply in self.pull_messages(waiting):
                if reply.metadata.reply_to_message_id in waiting:
                    waiting.remove(reply.metadata.reply_to_message_id)
                    replies.append(reply)
                    self._heard(reply)
            if not waiting or time.monotonic() >= deadline:
                break
            time.sleep(_POLL_SECONDS)
        return replies
