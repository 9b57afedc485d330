"""The updates of one round as they come in: each is checked before it counts."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fedkd_flwr.codec import CodecError, EncodedUpdate
from fedkd_flwr.config.groups import FederationConfig
from fedkd_flwr.errors import ProtocolError
from fedkd_flwr.messages import TrainReply
from fedkd_flwr.runtime.one_line import one_line
from fedkd_flwr.server.aggregation import Sent, norm
from fedkd_flwr.server.client_registry import Member
from fedkd_flwr.tracking.traffic_log import TrafficRow, dropped_row, traffic_rows


@dataclass(frozen=True)
class Expected:
    """What every update of a round must say of itself.

    Attributes:
        lineage: the run's lineage.
        round: from 1.
        version: the version of the student from which it was trained.
        shapes: the shape of each shared tensor.
    """

    lineage: str
    round: int
    version: int
    shapes: Mapping[str, tuple[int, ...]]


@dataclass
class Received:
    """The updates of a round that count, and those that do not.

    Attributes:
        replies: those that count, in the order of the members.
        sent: their updates, in the same order.
        rows: traffic of all updates, of dropped ones too.
        failed: node -> why it has no update that counts.
    """

    failed: dict[str, str]
    replies: list[TrainReply] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    rows: list[TrafficRow] = field(default_factory=list)


def receive(replied: Iterable[tuple[Member, TrainReply]], failed: Mapping[str, str], expected: Expected) -> Received:
    """Check the updates of a round; one that does not fit leaves no trace but a traffic row and a reason.

    Args:
        replied: who answered, and what; a member whose update counts holds the version of its answer from now on.
        failed: node -> why it has no answer.
        expected: what each update must be of.
    """
    received = Received(dict(failed))
    for member, reply in replied:
        node = member.info.node
        try:
            encoded, length = checked(member, reply, expected)
        except (ProtocolError, CodecError) as error:
            received.failed[node] = one_line(str(error))
            received.rows.append(dropped_row(expected.round, node, len(reply.update)))
            continue
        member.version = reply.version
        received.replies.append(reply)
        received.sent.append(Sent(node, encoded, member.info.train_examples, length))
        received.rows += traffic_rows(expected.round, node, "up", encoded)
    return received


def checked(member: Member, reply: TrainReply, expected: Expected) -> tuple[EncodedUpdate, float]:
    """The update of a member, and its L2 norm over all tensors.

    Raises:
        ProtocolError: it is another node's, of another run, round or version, or too long to be added to others.
        CodecError: its bytes are no update of these tensors.
    """
    if reply.node != member.info.node:
        raise ProtocolError(f"its update says that it is of {reply.node}")
    if reply.lineage != expected.lineage:
        raise ProtocolError(f"its update is of lineage {reply.lineage}, this run has {expected.lineage}")
    if (reply.round, reply.version) != (expected.round, expected.version):
        raise ProtocolError(
            f"its update is of round {reply.round} from version {reply.version}, "
            f"expected round {expected.round} from version {expected.version}"
        )
    encoded = EncodedUpdate.from_bytes(reply.update)
    encoded.require(expected.shapes)
    length = norm(encoded.decode())
    if not math.isfinite(length):
        raise ProtocolError("its update is too long to be added to others")
    return encoded, length


def shortfall(federation: FederationConfig, asked: int, good: int, failed: Mapping[str, str]) -> str:
    """Why so many good answers are too few, in words; empty: they are enough.

    Args:
        federation: how many are needed.
        asked: nodes that were asked.
        good: nodes whose answer counts.
        failed: node -> why its answer does not.
    """
    if good >= federation.min_train_nodes and 2 * good >= asked:
        return ""
    return (
        f"{good} of {asked} nodes gave a good answer, needed are half of them and "
        f"federation.min-train-nodes = {federation.min_train_nodes}. "
        f"{'; '.join(f'{node}: {reason}' for node, reason in failed.items())}"
    )
