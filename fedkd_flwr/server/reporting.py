"""What the server says of a run as it goes: to Flower's log, and to whoever watches."""

from collections.abc import Sequence
from logging import getLogger
from pathlib import Path

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.config.tasks import Metrics
from fedkd_flwr.live.channel import tell
from fedkd_flwr.live.events import Answered, Asked, Failed, Joined, RoundEnded, RunBegan, RunEnded, Scored, Work
from fedkd_flwr.messages import EvaluateReply, JoinReply, Scores, TrainReply
from fedkd_flwr.tracking.history import History, ScoreBoard
from fedkd_flwr.tracking.seconds import in_words

log = getLogger("flwr")


def say_begun(config: RunConfig, folder: Path, lineage: str, history: History) -> None:
    """Say what is run, after the rounds that the history has."""
    done = len(history.rounds)
    log.info(
        "fedkd: %s, rounds %d to %d, lineage %s, results in %s once nodes have joined",
        config.method, done + 1, config.num_rounds, lineage, folder,
    )  # fmt: skip
    tell(
        RunBegan(
            method=config.method,
            after=done,
            num_rounds=config.num_rounds,
            score=config.task_spec.metrics.headings[0],
            bytes_up=sum(entry.bytes_up for entry in history.rounds),
            bytes_down=history.initial.bytes_down + sum(entry.bytes_down for entry in history.rounds),
        )
    )


def say_joined(info: JoinReply) -> None:
    """Say that a node takes part, and what its owner should know."""
    log.info(
        "fedkd: %s joined: %s, %d training examples, %s",
        info.node, info.title, info.train_examples, info.device,
    )  # fmt: skip
    tell(Joined(node=info.node, title=info.title, examples=info.train_examples))
    for note in info.notes:
        log.warning("fedkd: %s: %s", info.node, note)


def tell_asked(round: int, work: Work, nodes: Sequence[str], bytes_down: int) -> None:
    """Tell whom the server asks for what, with so many encoded bytes in all messages together."""
    tell(Asked(round=round, work=work, nodes=tuple(nodes), bytes_down=bytes_down))


def tell_answered(node: str, reply: TrainReply | EvaluateReply, metrics: Metrics) -> None:
    """Tell what a node answered, as its answer comes in; it is checked later."""
    found = reply.evaluation
    teacher = (found.teacher_own_labels or found.teacher) if found else None
    tell(
        Answered(
            node=node,
            losses=reply.losses if isinstance(reply, TrainReply) else {},
            student=_first(found.student if found else None, metrics),
            teacher=_first(teacher, metrics),
            bytes_up=len(reply.update) if isinstance(reply, TrainReply) else 0,
        )
    )


def tell_failed(node: str, reason: str) -> None:
    """Tell that a node has failed as soon as it says so; at the end of a round the log warns of all that have."""
    tell(Failed(node=node, reason=reason))


def say_round(config: RunConfig, history: History) -> None:
    """Say how the newest round came out, with the scores of the models before it."""
    entry = history.rounds[-1]
    log.info(
        "fedkd: round %d of %d: %d of %d nodes, %.2f MB up a node, %.0f s%s",
        entry.round,
        config.num_rounds,
        entry.trained,
        entry.asked,
        entry.bytes_up / entry.trained / 1e6,
        entry.seconds["round"],
        history.in_words(entry.round - 1),
    )
    tell_scores(config, history, entry.round - 1)
    tell(
        RoundEnded(
            round=entry.round,
            trained=entry.trained,
            asked=entry.asked,
            losses=entry.losses,
            bytes_up=entry.bytes_up,
            seconds=entry.seconds["round"],
        )
    )


def say_finished(config: RunConfig, history: History) -> None:
    """Say how the run came out."""
    last = len(history.rounds)
    log.info("fedkd: finished%s", history.in_words(last))
    log.info("fedkd: %s", in_words(entry.seconds for entry in history.rounds))
    tell_scores(config, history, last)
    tell(RunEnded(round=last))


def tell_scores(config: RunConfig, history: History, round: int) -> None:
    """Tell the scores of the models after a round, where they were scored."""
    board: ScoreBoard = history.after(round)
    if board.nodes is not None:
        metrics = config.task_spec.metrics
        tell(
            Scored(
                round=round,
                student=_first(board.student, metrics),
                student_own_labels=_first(board.student_own_labels, metrics),
                teachers=_first(board.teachers_own_labels or board.teachers, metrics),
            )
        )


def _first(scores: Scores | None, metrics: Metrics) -> float | None:
    """The score that stands for a model; None: it has none."""
    return (scores or {}).get(metrics.shown[0])
