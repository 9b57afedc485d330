"""What nodes report of a round, as the run keeps it and the log says it."""

from collections.abc import Iterable, Mapping, Sequence
from logging import getLogger

from fedkd_flwr.config.groups import FederationConfig
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.messages import EvaluateReply, Evaluation, TrainReply
from fedkd_flwr.server.aggregation import Aggregated
from fedkd_flwr.server.client_registry import Member
from fedkd_flwr.tracking.history import ScoreBoard, Scored

log = getLogger("flwr")


def record(config: RunConfig, board: Scored, asked: Sequence[Member], evaluations: Mapping[str, Evaluation]) -> None:
    """Keep the scores that nodes found.

    Args:
        config: the run config.
        board: where they are kept.
        asked: all members that were asked.
        evaluations: node -> what it found.
    """
    classes = {len(member.info.labels) for member in asked}
    board.record(evaluations, config.task_spec.metrics.of(classes), config.federation.max_weight_share)


def record_exported(
    config: RunConfig, board: Scored, asked: Sequence[Member], replies: Sequence[tuple[Member, EvaluateReply]]
) -> None:
    """Keep the scores of the models that nodes have exported, and why some have not; arguments as `record`."""
    record(config, board, asked, {member.info.node: reply.evaluation for member, reply in replies})
    board.not_exported = {reply.node: reply.not_exported for _, reply in replies if reply.not_exported}
    for node, reason in board.not_exported.items():
        log.warning("fedkd: %s has not exported its models: %s", node, reason)


def note(board: ScoreBoard, replies: Iterable[TrainReply | EvaluateReply]) -> None:
    """Keep and log what the owners of nodes should know."""
    for reply in replies:
        for line in reply.notes:
            board.notes.setdefault(reply.node, []).append(line)
            log.warning("fedkd: %s: %s", reply.node, line)


def say_who_counted_less(federation: FederationConfig, round: int, aggregated: Aggregated) -> None:
    """Log whose update was shortened, and whose weight was cut, in a round."""
    for node, times in aggregated.shortened.items():
        log.warning(
            "fedkd: round %d: the update of %s is %.1f times as long as the median one: shortened to %g times",
            round, node, times, federation.max_update_norm,
        )  # fmt: skip
    for node, share in aggregated.lightened.items():
        log.warning(
            "fedkd: round %d: %s has %.0f %% of the training examples: federation.max-weight-share lets it "
            "count for %.0f %%",
            round, node, 100 * share, 100 * federation.max_weight_share,
        )  # fmt: skip
