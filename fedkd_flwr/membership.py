"""Who takes part: which nodes are there, what each holds, and how long the server waits for them."""

import math
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from logging import getLogger

from flwr.app import Message
from flwr.serverapp import Grid

from fedkd_flwr.errors import ProtocolError, RunError
from fedkd_flwr.protocol import JoinReply, JoinRequest, collect, to_records

log = getLogger("flwr")

_POLL_SECONDS = 1.0


@dataclass
class Member:
    """A node that has joined.

    Attributes:
        node_id: Flower's id of the process that speaks for it.
        info: what it said of itself.
        version: of the student that it holds; None: unknown, it needs a snapshot.
    """

    node_id: int
    info: JoinReply
    version: int | None

    @property
    def order(self) -> tuple[int, str]:
        """The order of sums and of samples: independent of when processes start."""
        return self.info.partition, self.info.node


class Membership:
    """The nodes of a run; asks each new one once who it is, and forgets those that are gone."""

    def __init__(
        self, lineage: str, admit: Callable[[JoinReply], int | None], minimum: int, wait_seconds: float
    ) -> None:
        """Start with nobody.

        Args:
            lineage: of the run.
            admit: decides which version a node really holds (None: unknown); a ProtocolError refuses it.
            minimum: how many nodes a round needs.
            wait_seconds: how long to wait for them.
        """
        self._lineage = lineage
        self._admit = admit
        self._minimum = minimum
        self._wait_seconds = wait_seconds
        self._members: dict[str, Member] = {}
        self._refused: dict[int, str] = {}

    def present(self, grid: Grid) -> list[Member]:
        """The members that are online, in order, newcomers among them; waits until there are enough.

        Raises:
            RunError: too few nodes are there after the wait, or too few of those that are there can take part.
        """
        deadline = time.monotonic() + self._wait_seconds
        self._refused.clear()
        while True:
            online = set(grid.get_node_ids())
            known = {member.node_id for member in self._members.values()} | self._refused.keys()
            if newcomers := sorted(online - known):
                self._join(grid, newcomers)
            members = sorted(
                (member for member in self._members.values() if member.node_id in online),
                key=lambda member: member.order,
            )
            if len(members) >= self._minimum:
                return members
            refusals = [reason for node_id, reason in self._refused.items() if node_id in online]
            if len(online) >= self._minimum or time.monotonic() >= deadline:
                raise RunError(
                    f"{len(members)} nodes can take part, min-train-nodes is {self._minimum}"
                    + ("".join(f"; {reason}" for reason in dict.fromkeys(refusals)))
                    + ("" if refusals else f" (waited {self._wait_seconds:.0f} s: start more SuperNodes)")
                )
            time.sleep(_POLL_SECONDS)

    def forget(self, node: str) -> None:
        """A node failed: before it is asked again it must say what it holds."""
        self._members.pop(node, None)

    def _join(self, grid: Grid, node_ids: Iterable[int]) -> None:
        request = to_records(JoinRequest(lineage=self._lineage))
        messages = [Message(request, dst_node_id=node_id, message_type="query") for node_id in node_ids]
        replies = grid.send_and_receive(messages, timeout=self._wait_seconds)
        answers, failures = collect(messages, replies, JoinReply)
        for node_id, reason in failures.items():
            self._refuse(node_id, reason)
        for node_id, info in sorted(answers.items(), key=lambda item: (item[1].partition, item[1].node)):
            try:
                twin = self._members.get(info.node)
                if twin is not None and twin.node_id in answers:
                    raise ProtocolError(
                        f"two nodes are called {info.node}: give each SuperNode a partition-id or name of its own"
                    )
                self._members[info.node] = Member(node_id, info, self._admit(info))
            except ProtocolError as error:
                self._refuse(node_id, str(error))
                continue
            log.info(
                "fedkd: %s joined: %s, %d training examples, %s", info.node, info.title,
                info.train_examples, info.device,
            )  # fmt: skip
            for note in info.notes:
                log.warning("fedkd: %s: %s", info.node, note)

    def _refuse(self, node_id: int, reason: str) -> None:
        self._refused[node_id] = reason
        log.error("fedkd: node %d cannot take part: %s", node_id, reason)


def sample(members: list[Member], fraction: float, minimum: int, seed: int, round: int) -> list[Member]:
    """The members that train in a round, in order: determined by seed, round and who is there."""
    count = min(len(members), max(minimum, math.ceil(fraction * len(members))))
    chosen = random.Random(f"{seed}/{round}").sample(members, count)
    return sorted(chosen, key=lambda member: member.order)
