"""FedKD as a Flower strategy: whom to ask, what they hold already, how their replies become the next student."""

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from logging import getLogger

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedkd_flwr import tensors
from fedkd_flwr.codec.settings import CodecSettings, build_codec, codec_settings
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import RunError
from fedkd_flwr.messages import EvaluateReply, TrainReply
from fedkd_flwr.server.aggregation import aggregate, weights
from fedkd_flwr.server.best_round import BestRound
from fedkd_flwr.server.client_registry import Member, Membership, sample
from fedkd_flwr.server.global_student import GlobalStudent
from fedkd_flwr.server.handshake import Admission
from fedkd_flwr.server.received import Expected, Received, receive, shortfall
from fedkd_flwr.server.reporting import say_begun, say_finished, say_round
from fedkd_flwr.server.requests import Asking
from fedkd_flwr.server.run_folder import RunFolder, RunState
from fedkd_flwr.server.scoring import note, record, record_exported, say_who_counted_less
from fedkd_flwr.tracking.history import BestEntry, RoundEntry, mean_scores, prefixed
from fedkd_flwr.tracking.seconds import by_part

log = getLogger("flwr")


class _EndedEarlyError(Exception):
    """Ends Flower's loop over the rounds."""


class FedKD(Strategy):
    """One round: refresh and train the sampled nodes, average their updates, re-encode the mean, apply it.

    Flower counts rounds from 1 in each run; here `round` goes on where the run that is resumed stopped.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        state: RunState,
    ) -> None:
        """Start, or go on after `state.round`; every round is kept in `folder`."""
        self.config = config
        self.state = state
        self._folder = folder
        self._admission = Admission(config, state)
        self._offset = state.round
        self._membership = Membership(
            state.lineage,
            self._admission,
            config.federation.min_train_nodes,
            config.federation.node_wait_seconds,
            config.federation.round_timeout_seconds,
        )
        self._begun = False
        self._best = BestRound(config, state.history, folder.path)
        self._asking = Asking(config, folder, state, self._best)

    def summary(self) -> None:
        """Say what is run; Flower calls it once."""
        say_begun(self.config, self._folder.path, self.state.lineage, self.state.history)

    def heard(self, reply: Message) -> None:
        """Tell whoever watches of a reply that comes in; it is checked once all are there."""
        self._asking.tell_reply(reply)

    def run(self, grid: Grid) -> None:
        """All rounds that are left, then what a run leaves.

        Raises:
            FedKDError: it cannot be finished; says why and how it may go on.
        """
        try:
            with suppress(_EndedEarlyError):
                rounds = self.config.num_rounds - self.state.round
                self.start(grid, ArrayRecord(), num_rounds=rounds, timeout=self.config.federation.round_timeout_seconds)
            self.finish(grid)
        finally:
            self.export()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The messages of a round; nodes that come for the first time are asked who they are before.

        Raises:
            RunError: too few nodes.
        """
        round = server_round + self._offset
        if self._best.ends(round - 1):
            raise _EndedEarlyError
        federation = self.config.federation
        chosen = sample(
            self._present(grid), federation.fraction_train, federation.min_train_nodes, self.config.seed, round
        )
        return self._asking.to_train(chosen, round, self._evaluates_after(round - 1))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the good updates, advance the student, checkpoint.

        Raises:
            RunError: too few good replies; names why each of the others failed.
        """
        round, came_in = server_round + self._offset, time.perf_counter()
        received = self._received(round, replies)
        self.state.taken.update({reply.node: round for reply in received.replies})
        before, codec = self._student.tensors, self._codec(round)
        aggregated = aggregate(self.config, received.sent)
        say_who_counted_less(self.config.federation, round, aggregated)
        self._student.advance(aggregated.update, build_codec(codec), self._feedback)
        self._record_before(round, received)  # first: these scores say whether this round is the last
        entry = self._entry(round, codec, received)
        self._best.keep({round - 1: before, round: self._student.tensors})
        now = time.perf_counter()
        entry.seconds = by_part(received.replies, now - self._asking.sent_at, now - came_in)
        self._keep()
        say_round(self.config, self.state.history)
        arrays = ArrayRecord(dict(self._student.tensors)) if self._is_last(round) else None
        return arrays, MetricRecord({"bytes-up": entry.bytes_up, **prefixed("train-loss", entry.losses)})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """After the last round: the last student goes to every node, which scores it and its teacher."""
        round = server_round + self._offset
        return self._asking.for_scores(self._present(grid)) if self._is_last(round) else []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Record the scores of the last round.

        Raises:
            RunError: too few good replies.
        """
        round = server_round + self._offset
        if not self._is_last(round):
            return None
        good, failed = self._asking.answers(replies, EvaluateReply)
        for node, reason in failed.items():
            log.warning("fedkd: final evaluation: no answer from %s: %s", node, reason)
        self._require(round, len(good), failed)
        board = self.state.history.after(round)
        record_exported(self.config, board, self._asking.members, good)
        note(board, [reply for _, reply in good])
        for member, reply in good:
            member.version = reply.version
        self._best.keep({round: self._student.tensors})
        self.state.history.best, self.state.history.ended_early = None, round < self.config.num_rounds
        self._keep()
        if self.state.history.ended_early:
            log.info(
                "fedkd: ended early, after round %d of %d: %d evaluations without a better %s",
                round, self.config.num_rounds, self.config.federation.early_stopping, self._best.metric,
            )  # fmt: skip
        say_finished(self.config, self.state.history)
        return MetricRecord({**prefixed("student", board.student), **prefixed("teachers", board.teachers)})

    def finish(self, grid: Grid) -> None:
        """The last evaluation and the best round's export, where they are still lacking or a node has not exported."""
        last = self.state.history.after(self.state.round)
        if last.nodes is None or last.not_exported:
            messages = self._asking.for_scores(self._present(grid))
            replies = grid.send_and_receive(messages, timeout=self.config.federation.round_timeout_seconds)
            self.aggregate_evaluate(self.state.round - self._offset, replies)
        best = self.state.history.best
        if self._best.number and (best is None or best.not_exported):
            self._export_best(grid)

    def export(self) -> None:
        """Write the models of a run whose rounds are all done into its folder, however their last scores came out."""
        if self.state.student is not None and self._is_last(self.state.round):
            if self._best.metric and not self._best.number:
                log.warning("fedkd: no round has a %s: the last one is exported", self._best.metric)
            self._admission.model.export(self._best.of(self.state), self._folder.path)
            last = self.state.history.best if self._best.number else self.state.history.after(self.state.round)
            if last is not None and last.nodes is not None and not last.not_exported:
                self._folder.finish(self.state, self.config)

    def _received(self, round: int, replies: Iterable[Message]) -> Received:
        """The good updates of a round, in the ledger with the others; too few of them end the run."""
        student = self._student
        expected = Expected(self.state.lineage, round, student.version, tensors.shapes(student.tensors))
        received = receive(*self._asking.answers(replies, TrainReply), expected)
        self._folder.ledger.add(received.rows)
        for node, reason in received.failed.items():
            self._membership.forget(node)
            log.warning("fedkd: round %d: no update from %s: %s", round, node, reason)
        self._require(round, len(received.replies), received.failed)
        return received

    def _record_before(self, round: int, received: Received) -> None:
        """Record what nodes scored before they trained a round."""
        found = {reply.node: reply.evaluation for reply in received.replies if reply.evaluation is not None}
        record(self.config, self.state.history.after(round - 1), self._asking.members, found)

    def _entry(self, round: int, codec: CodecSettings, received: Received) -> RoundEntry:
        """The entry of a round, whose student is there, in the history."""
        shares = weights(self.config, [sent.examples for sent in received.sent])
        losses = [reply.losses for reply in received.replies]
        distillation = [reply.distillation for reply in received.replies]
        scored = self._evaluates_after(round) or self._is_last(round)
        entry = RoundEntry(
            round=round,
            codec=codec.as_history(),
            distillation=mean_scores(zip(shares, distillation, strict=True)) or {},
            losses=mean_scores(zip(shares, losses, strict=True)) or {},
            asked=len(self._asking.members),
            trained=len(received.replies),
            failed=received.failed,
            bytes_up=self._folder.ledger.total(round, "up"),
            server=self._admission.model.score(self._student.tensors) if scored else None,
        )
        history = self.state.history
        history.rounds.append(entry)
        history.best, history.ended_early = None, False
        self.state.round = round
        note(entry, received.replies)
        return entry

    def _present(self, grid: Grid) -> list[Member]:
        """The members that are online; once the first have joined, the run has a folder."""
        members = self._membership.present(grid)
        if not self._begun:
            self._best.require({len(member.info.labels) for member in members}, bool(self.state.label_shares))
            self._folder.begin(self.state, self.config)
            self._begun = True
        return members

    def _export_best(self, grid: Grid) -> None:
        """Let the nodes export their models of the best round, and record what these score."""
        best, history = self._best.number, self.state.history
        board = BestEntry.of(best, self._best.metric, history.after(best))
        if best < self.state.round:
            messages = self._asking.for_scores(self._present(grid), use_best=True)
            replies = grid.send_and_receive(messages, timeout=self.config.federation.round_timeout_seconds)
            good, failed = self._asking.answers(replies, EvaluateReply)
            for node, reason in failed.items():
                log.warning("fedkd: round %d is the best, but %s keeps its newest models: %s", best, node, reason)
            record_exported(self.config, board, self._asking.members, good)
        history.best = board
        self._keep()
        score = self._best.score(board)
        log.info(
            "fedkd: round %d of %d is the best by %s%s: it is exported",
            best, self.state.round, self._best.metric, "" if score is None else f" ({score:.3f})",
        )  # fmt: skip

    @property
    def _student(self) -> GlobalStudent:
        assert self.state.student is not None, "no node has joined yet"
        return self.state.student

    def _require(self, round: int, good: int, failed: Mapping[str, str]) -> None:
        """Whether so many good answers are enough; where they are not, the run can go on from its last round."""
        if lack := shortfall(self.config.federation, len(self._asking.members), good, failed):
            self._keep()
            raise RunError(
                f"round {round}: {lack}. To go on after round {self.state.round}: "
                f'set run.resume = "{self._folder.path}"'
            )

    @property
    def _feedback(self) -> bool:
        """Whether what the encodings of the mean drop is sent later."""
        return self.config.codec.error_feedback in ("down", "both")

    def _codec(self, round: int) -> CodecSettings:
        return codec_settings(self.config, round, self._student.snapshot_bytes)

    def _is_last(self, round: int) -> bool:
        return round == self.config.num_rounds or self._best.ends(round)

    def _evaluates_after(self, round: int) -> bool:
        return round % self.config.federation.evaluate_every == 0 or round == self.config.num_rounds

    def _keep(self) -> None:
        self._folder.checkpoint(self.state, self.config)
        self._best.forget_others()
