"""The messages of a round: who is asked, what brings each to the student, and what comes back."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeVar

from flwr.app import Message

from fedkd_flwr.codec import EncodedUpdate
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.live.channel import heard
from fedkd_flwr.messages import (
    EvaluateReply,
    EvaluateRequest,
    Refresh,
    TrainReply,
    TrainRequest,
)
from fedkd_flwr.names import fitting
from fedkd_flwr.records import collect, to_records
from fedkd_flwr.server.best_round import BestRound
from fedkd_flwr.server.client_registry import Member
from fedkd_flwr.server.reporting import tell_answered, tell_asked, tell_failed
from fedkd_flwr.server.run_folder import RunFolder, RunState
from fedkd_flwr.tracking.traffic_log import TrafficRow, traffic_rows

_Answer = TypeVar("_Answer", TrainReply, EvaluateReply)


class Asking:
    """Asks members once, and counts what it takes before anything is sent.

    Attributes:
        members: who was asked last, in order.
        sent_at: when, by `time.perf_counter`.
    """

    def __init__(self, config: RunConfig, folder: RunFolder, state: RunState, best: BestRound) -> None:
        """Nobody was asked yet."""
        self._folder, self._state, self._best = folder, state, best
        self._seconds, self._metrics = config.federation.round_timeout_seconds, config.task_spec.metrics
        self._messages: list[Message] = []
        self.members: list[Member] = []
        self.sent_at = 0.0

    def to_train(self, members: Sequence[Member], round: int, evaluate: bool) -> list[Message]:
        """The messages of a round, from 1; nodes score the student before they train it, where `evaluate` says so."""
        state = self._state
        return self._ask(
            members,
            "train",
            lambda member, refresh: TrainRequest(
                lineage=state.lineage,
                run=fitting(self._folder.path.name),
                round=round,
                taken=state.taken.get(member.info.node, 0),
                shared_head=state.shared_head,
                label_shares=state.label_shares,
                evaluate=evaluate,
                best=self._best.number,
                refresh=refresh,
            ),
        )

    def for_scores(self, members: Sequence[Member], use_best: bool = False) -> list[Message]:
        """The messages with the last student, which nodes score with their teachers; or those of the best round."""
        state = self._state
        return self._ask(
            members,
            "evaluate",
            lambda member, refresh: EvaluateRequest(
                lineage=state.lineage,
                run=fitting(self._folder.path.name),
                round=state.round,
                taken=state.taken.get(member.info.node, 0),
                shared_head=state.shared_head,
                label_shares=state.label_shares,
                best=self._best.number,
                use_best=use_best,
                refresh=refresh,
            ),
        )

    def answers(
        self, replies: Iterable[Message], kind: type[_Answer]
    ) -> tuple[list[tuple[Member, _Answer]], dict[str, str]]:
        """The answers in the order of the members, and why the other nodes have none."""
        answers, failures = collect(self._messages, replies, kind)
        members = {member.node_id: member for member in self.members}
        return (
            [(member, answers[node_id]) for node_id, member in members.items() if node_id in answers],
            {members[node_id].info.node: reason for node_id, reason in failures.items()},
        )

    def tell_reply(self, reply: Message) -> None:
        """Tell whoever watches of one reply to the messages that were made last."""
        if not heard():
            return
        if self._messages[0].metadata.message_type == "train":
            self._tell_answer(reply, TrainReply)
        else:
            self._tell_answer(reply, EvaluateReply)

    def _tell_answer(self, reply: Message, kind: type[_Answer]) -> None:
        asked = [m for m in self._messages if m.metadata.message_id == reply.metadata.reply_to_message_id]
        answers, failures = collect(asked, [reply], kind)
        names = {member.node_id: member.info.node for member in self.members}
        for node_id, answer in answers.items():
            tell_answered(names[node_id], answer, self._metrics)
        for node_id, reason in failures.items():
            tell_failed(names[node_id], reason)

    def _ask(
        self,
        members: Sequence[Member],
        message_type: Literal["train", "evaluate"],
        request: Callable[[Member, Refresh], TrainRequest | EvaluateRequest],
    ) -> list[Message]:
        """The messages, each with what its member lacks of the student; they are in the ledger and not yet sent."""
        student, board = self._state.student, self._state.history.after(self._state.round)
        assert student is not None, "no node has joined yet"
        self.members, self._messages, self.sent_at = list(members), [], time.perf_counter()
        rows: list[TrafficRow] = []
        held = [(member.version, self._lacks_best(member, student.version)) for member in members]
        best = self._best.student() if any(lacks for _, lacks in held) else None
        refreshes = {
            (version, lacks): student.refresh_from(version, best if lacks else None) for version, lacks in set(held)
        }
        encoded = {v: [EncodedUpdate.from_bytes(payload) for payload in r.payloads] for v, r in refreshes.items()}
        for member, at in zip(members, held, strict=True):
            records = to_records(request(member, refreshes[at]))
            message = Message(records, dst_node_id=member.node_id, message_type=message_type, ttl=self._seconds)
            self._messages.append(message)
            for update in encoded[at]:
                rows += traffic_rows(self._state.round, member.info.node, "down", update)
        self._folder.ledger.add(rows)
        board.refreshed = max(board.refreshed, len(members))
        board.bytes_down = self._folder.ledger.total(self._state.round, "down")
        round = self._state.round + (message_type == "train")
        tell_asked(round, message_type, [member.info.node for member in members], sum(row.bytes for row in rows))
        return self._messages

    def _lacks_best(self, member: Member, current: int) -> bool:
        """Whether a node that has trained did not get as far as the best round's student."""
        if member.version is None or member.info.node not in self._state.taken:
            return False
        return member.version < self._best.number < current
