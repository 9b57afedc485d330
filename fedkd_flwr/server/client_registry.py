"""Who takes part: which nodes are there, what each holds, and how long the server waits for them."""

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from logging import getLogger

from flwr.app import Message
from flwr.serverapp import Grid

from fedkd_flwr.errors import ProtocolError, RunError
from fedkd_flwr.messages import JoinReply, JoinRequest
from fedkd_flwr.records import collect, to_records
from fedkd_flwr.runtime.one_line import one_line
from fedkd_flwr.server.reporting import say_joined

log = getLogger("flwr")

_POLL_SECONDS = 1.0
_LISTEN_SECONDS = 0.2
_NEWCOMER_SECONDS = 30.0
"""How long a round waits for newcomers to answer when there are enough members without them (to start a process for
a message takes a busy machine 10 to 20)."""


@dataclass
class Member:
    """A node that has joined.

    Attributes:
        node_id: Flower's id of the process that speaks for it.
        info: what it said of itself.
        version: of the student that it holds; None: unknown, it needs a snapshot.
        admitted: whether the run has found that it fits.
    """

    node_id: int
    info: JoinReply
    version: int | None = None
    admitted: bool = False

    @property
    def order(self) -> tuple[int, str]:
        """The order of sums and of samples: independent of when processes start."""
        return self.info.partition, self.info.node


class Membership:
    """The nodes of a run; asks each new one once who it is, and forgets those that are gone."""

    def __init__(
        self,
        lineage: str,
        admit: Callable[[JoinReply, Sequence[JoinReply]], int | None],
        minimum: int,
        wait_seconds: float,
        answer_seconds: float,
    ) -> None:
        """Start with nobody.

        Args:
            lineage: of the run.
            admit: decides which version a node really holds (None: unknown), a newcomer among these newcomers; a
                ProtocolError refuses it.
            minimum: how many nodes a round needs; fewer newcomers are not admitted before others have come.
            wait_seconds: how long to wait for so many to be online.
            answer_seconds: how long to wait for them to say who they are; once they have, a round does not
                wait for others.
        """
        self._lineage = lineage
        self._admit = admit
        self._minimum = minimum
        self._wait_seconds = wait_seconds
        self._answer_seconds = answer_seconds
        self._members: dict[str, Member] = {}
        self._asked: dict[int, Message] = {}
        self._refused: dict[int, str] = {}
        self._displaced: set[int] = set()

    def present(self, grid: Grid) -> list[Member]:
        """The members that are online, in order, newcomers among them; waits until there are enough.

        Raises:
            RunError: too few nodes are there after the wait, or too few of those that are there can take part.
        """
        start = time.monotonic()
        self._refused.clear()
        first = not self._members
        while True:
            online = set(grid.get_node_ids())
            self._greet(grid, online)
            patience = _NEWCOMER_SECONDS if self._enough(online) and not first else self._answer_seconds
            self._listen(grid, online, patience)
            complete = len(online) >= self._minimum or time.monotonic() >= start + self._wait_seconds
            if complete:
                self._admit_newcomers(online)
            if self._enough(online):
                return self._online(online)
            if complete:
                refusals = dict.fromkeys(reason for node_id, reason in self._refused.items() if node_id in online)
                raise RunError(
                    f"{len(self._online(online))} nodes can take part, federation.min-train-nodes is {self._minimum}"
                    + "".join(f"; {reason}" for reason in refusals)
                    + ("" if refusals else f" (waited {time.monotonic() - start:.0f} s: start more SuperNodes)")
                )
            time.sleep(_POLL_SECONDS)

    def forget(self, node: str) -> None:
        """A node failed: before it is asked again it must say what it holds."""
        self._members.pop(node, None)

    def _online(self, online: set[int]) -> list[Member]:
        members = (member for member in self._members.values() if member.node_id in online)
        return sorted(members, key=lambda member: member.order)

    def _enough(self, online: set[int]) -> bool:
        return len(self._online(online)) >= self._minimum

    def _greet(self, grid: Grid, online: set[int]) -> None:
        """Ask those who are new, or whose answer was lost, who they are."""
        now = time.time()
        self._asked = {
            node_id: message
            for node_id, message in self._asked.items()
            if node_id in online and now < message.metadata.created_at + message.metadata.ttl
        }
        known = {member.node_id for member in self._members.values()} | self._asked.keys() | self._refused.keys()
        request = to_records(JoinRequest(lineage=self._lineage))
        messages = [
            Message(request, dst_node_id=node_id, message_type="query", ttl=self._answer_seconds)
            for node_id in sorted(online - known)
        ]
        ids = grid.push_messages(messages)
        self._asked |= {m.metadata.dst_node_id: m for m, pushed in zip(messages, ids, strict=True) if pushed}

    def _listen(self, grid: Grid, online: set[int], patience: float) -> None:
        """Take the answers that come; whoever is silent for longer is heard before a later round."""
        deadline = time.monotonic() + patience
        alive = set(self._displaced)
        while self._asked:
            by_message = {m.metadata.message_id: node_id for node_id, m in self._asked.items()}
            replies = list(grid.pull_messages(by_message))
            heard = [by_message[reply.metadata.reply_to_message_id] for reply in replies]
            answers, failures = collect([self._asked.pop(node_id) for node_id in heard], replies, JoinReply)
            for node_id, reason in failures.items():
                self._refuse(node_id, reason)
            for node_id, info in sorted(answers.items(), key=lambda item: (item[1].partition, item[1].node)):
                try:
                    self._welcome(node_id, info, online, alive)
                except ProtocolError as error:
                    self._refuse(node_id, str(error))
                alive.add(node_id)
            if not self._asked or time.monotonic() >= deadline:
                return
            time.sleep(_LISTEN_SECONDS)

    def _welcome(self, node_id: int, info: JoinReply, online: set[int], alive: set[int]) -> None:
        """A node that comes back under a new id takes the place of the old one, unless that one answers too."""
        twin = self._members.get(info.node)
        if twin is not None and twin.node_id in online:
            if {node_id, twin.node_id} & alive:
                raise ProtocolError(
                    f"two nodes are called {info.node}: give each SuperNode a partition-id or name of its own"
                )
            self._displaced.add(twin.node_id)
        self._members[info.node] = Member(node_id, info)

    def _admit_newcomers(self, online: set[int]) -> None:
        newcomers = [member for member in self._online(online) if not member.admitted]
        for member in newcomers:
            info = member.info
            try:
                member.version = self._admit(info, [newcomer.info for newcomer in newcomers])
            except ProtocolError as error:
                del self._members[info.node]
                self._refuse(member.node_id, str(error))
                continue
            member.admitted = True
            say_joined(info)

    def _refuse(self, node_id: int, reason: str) -> None:
        self._refused[node_id] = reason = one_line(reason)
        log.error("fedkd: node %d cannot take part: %s", node_id, reason)


def sample(members: list[Member], fraction: float, minimum: int, seed: int, round: int) -> list[Member]:
    """The members that train in a round, in order: determined by seed, round and who is there."""
    count = min(len(members), max(minimum, math.ceil(fraction * len(members))))
    chosen = random.Random(f"{seed}/{round}").sample(members, count)
    return sorted(chosen, key=lambda member: member.order)
