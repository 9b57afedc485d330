"""FedKD as a Flower strategy: whom to ask, what they hold already, how their replies become the next student."""

import math
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from logging import getLogger

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedkd_flwr import tensors
from fedkd_flwr.codec import CodecError, EncodedUpdate
from fedkd_flwr.codec.settings import CodecSettings, build_codec, codec_settings
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import ProtocolError, RunError
from fedkd_flwr.messages import (
    EvaluateReply,
    EvaluateRequest,
    Evaluation,
    TrainReply,
    TrainRequest,
)
from fedkd_flwr.names import fitting
from fedkd_flwr.runtime.one_line import one_line
from fedkd_flwr.server.aggregation import Aggregated, Sent, aggregate, norm, weights
from fedkd_flwr.server.best_round import BestRound
from fedkd_flwr.server.client_registry import Member, Membership, sample
from fedkd_flwr.server.global_student import GlobalStudent
from fedkd_flwr.server.handshake import Admission
from fedkd_flwr.server.requests import Asking
from fedkd_flwr.server.run_folder import RunFolder, RunState
from fedkd_flwr.tracking.history import BestEntry, RoundEntry, ScoreBoard, Scored, mean_scores, prefixed
from fedkd_flwr.tracking.seconds import by_part, in_words
from fedkd_flwr.tracking.traffic_log import TrafficRow, dropped_row, traffic_rows

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
        self._asking = Asking(folder, state, self._best, config.federation.round_timeout_seconds)

    def summary(self) -> None:
        """Log what is run."""
        log.info(
            "fedkd: %s, rounds %d to %d, lineage %s, results in %s once nodes have joined",
            self.config.method,
            self._offset + 1,
            self.config.num_rounds,
            self.state.lineage,
            self._folder.path,
        )

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
        members = self._present(grid)
        chosen = sample(
            members,
            self.config.federation.fraction_train,
            self.config.federation.min_train_nodes,
            self.config.seed,
            round,
        )
        return self._asking.ask(
            chosen,
            "train",
            lambda member, refresh: TrainRequest(
                lineage=self.state.lineage,
                run=fitting(self._folder.path.name),
                round=round,
                taken=self.state.taken.get(member.info.node, 0),
                shared_head=self.state.shared_head,
                label_shares=self.state.label_shares,
                evaluate=self._evaluates_after(round - 1),
                best=self._best.number,
                refresh=refresh,
            ),
        )

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the good updates, advance the student, checkpoint.

        Raises:
            RunError: too few good replies; names why each of the others failed.
        """
        round = server_round + self._offset
        received = time.perf_counter()
        replied, failed = self._asking.answers(replies, TrainReply)
        taken: list[TrainReply] = []
        sent: list[Sent] = []
        rows: list[TrafficRow] = []
        for member, reply in replied:
            try:
                rows += self._take(member, reply, round, sent)
                taken.append(reply)
            except (ProtocolError, CodecError) as error:
                failed[member.info.node] = one_line(str(error))
                rows.append(dropped_row(round, member.info.node, len(reply.update)))
        self._folder.ledger.add(rows)
        for node, reason in failed.items():
            self._membership.forget(node)
            log.warning("fedkd: round %d: no update from %s: %s", round, node, reason)
        self._require(round, len(taken), failed)
        self.state.taken.update({reply.node: round for reply in taken})

        codec = self._codec(round)
        aggregated = aggregate(self.config, sent)
        self._say_who_counted_less(round, aggregated)
        before = self._student.tensors
        self._student.advance(aggregated.update, build_codec(codec), self._feedback)
        self._record(
            self.state.history.after(round - 1), {r.node: r.evaluation for r in taken if r.evaluation is not None}
        )
        losses = [reply.losses for reply in taken]
        entry = RoundEntry(
            round=round,
            codec=codec.as_history(),
            losses=mean_scores(zip(weights(self.config, [s.examples for s in sent]), losses, strict=True)) or {},
            asked=len(self._asking.members),
            trained=len(taken),
            failed=failed,
            bytes_up=self._folder.ledger.total(round, "up"),
            server=self._admission.model.score(self._student.tensors)
            if self._evaluates_after(round) or self._is_last(round)
            else None,
        )
        history = self.state.history
        history.rounds.append(entry)
        history.best, history.ended_early = None, False
        self.state.round = round
        self._note(entry, taken)
        self._best.keep({round - 1: before, round: self._student.tensors})
        now = time.perf_counter()
        entry.seconds = by_part(taken, now - self._asking.sent_at, now - received)
        self._keep()
        log.info(
            "fedkd: round %d of %d: %d of %d nodes, %.2f MB up a node, %.0f s%s",
            round,
            self.config.num_rounds,
            entry.trained,
            entry.asked,
            entry.bytes_up / entry.trained / 1e6,
            entry.seconds["round"],
            self.state.history.in_words(round - 1),
        )
        arrays = ArrayRecord(dict(self._student.tensors)) if self._is_last(round) else None
        return arrays, MetricRecord({"bytes-up": entry.bytes_up, **prefixed("train-loss", entry.losses)})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """After the last round: the last student goes to every node, which scores it and its teacher."""
        round = server_round + self._offset
        return self._ask_for_scores(grid) if self._is_last(round) else []

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
        self._record_last(board, good)
        self._note(board, [reply for _, reply in good])
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
        log.info("fedkd: finished%s", self.state.history.in_words(round))
        log.info("fedkd: %s", in_words(entry.seconds for entry in self.state.history.rounds))
        return MetricRecord({**prefixed("student", board.student), **prefixed("teachers", board.teachers)})

    def finish(self, grid: Grid) -> None:
        """The last evaluation and the best round's export, where they are still lacking or a node has not exported."""
        last = self.state.history.after(self.state.round)
        if last.nodes is None or last.not_exported:
            replies = grid.send_and_receive(
                self._ask_for_scores(grid), timeout=self.config.federation.round_timeout_seconds
            )
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
            messages = self._ask_for_scores(grid, use_best=True)
            replies = grid.send_and_receive(messages, timeout=self.config.federation.round_timeout_seconds)
            good, failed = self._asking.answers(replies, EvaluateReply)
            for node, reason in failed.items():
                log.warning("fedkd: round %d is the best, but %s keeps its newest models: %s", best, node, reason)
            self._record_last(board, good)
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

    def _ask_for_scores(self, grid: Grid, use_best: bool = False) -> list[Message]:
        """The last student goes to every node, which scores it and its teacher, or those of the best round."""
        return self._asking.ask(
            self._present(grid),
            "evaluate",
            lambda member, refresh: EvaluateRequest(
                lineage=self.state.lineage,
                run=fitting(self._folder.path.name),
                round=self.state.round,
                taken=self.state.taken.get(member.info.node, 0),
                shared_head=self.state.shared_head,
                label_shares=self.state.label_shares,
                best=self._best.number,
                use_best=use_best,
                refresh=refresh,
            ),
        )

    def _take(self, member: Member, reply: TrainReply, round: int, sent: list[Sent]) -> list[TrafficRow]:
        """Check an update, add it to those sent, and return its rows; one that does not fit leaves no trace."""
        if reply.node != member.info.node:
            raise ProtocolError(f"its update says that it is of {reply.node}")
        if reply.lineage != self.state.lineage:
            raise ProtocolError(f"its update is of lineage {reply.lineage}, this run has {self.state.lineage}")
        if (reply.round, reply.version) != (round, self._student.version):
            raise ProtocolError(
                f"its update is of round {reply.round} from version {reply.version}, "
                f"expected round {round} from version {self._student.version}"
            )
        encoded = EncodedUpdate.from_bytes(reply.update)
        encoded.require(tensors.shapes(self._student.tensors))
        length = norm(encoded.decode())
        if not math.isfinite(length):
            raise ProtocolError("its update is too long to be added to others")
        sent.append(Sent(reply.node, encoded, member.info.train_examples, length))
        member.version = reply.version
        return traffic_rows(round, reply.node, "up", encoded)

    def _say_who_counted_less(self, round: int, aggregated: Aggregated) -> None:
        for node, times in aggregated.shortened.items():
            log.warning(
                "fedkd: round %d: the update of %s is %.1f times as long as the median one: shortened to %g times",
                round, node, times, self.config.federation.max_update_norm,
            )  # fmt: skip
        for node, share in aggregated.lightened.items():
            log.warning(
                "fedkd: round %d: %s has %.0f %% of the training examples: federation.max-weight-share lets it "
                "count for %.0f %%",
                round, node, 100 * share, 100 * self.config.federation.max_weight_share,
            )  # fmt: skip

    def _note(self, board: ScoreBoard, replies: Iterable[TrainReply | EvaluateReply]) -> None:
        for reply in replies:
            for note in reply.notes:
                board.notes.setdefault(reply.node, []).append(note)
                log.warning("fedkd: %s: %s", reply.node, note)

    def _require(self, round: int, good: int, failed: Mapping[str, str]) -> None:
        config = self.config
        if good >= config.federation.min_train_nodes and good >= config.federation.min_success_share * len(
            self._asking.members
        ):
            return
        self._keep()
        reasons = "; ".join(f"{node}: {reason}" for node, reason in failed.items())
        raise RunError(
            f"round {round}: {good} of {len(self._asking.members)} nodes gave a good answer, needed are "
            f"federation.min-train-nodes = {config.federation.min_train_nodes} and federation.min-success-share = "
            f"{config.federation.min_success_share}. "
            f'{reasons}. To go on after round {self.state.round}: set run.resume = "{self._folder.path}"'
        )

    def _record(self, board: Scored, evaluations: Mapping[str, Evaluation]) -> None:
        """Keep what the nodes that were asked found."""
        classes = {len(member.info.labels) for member in self._asking.members}
        names = self.config.task_spec.metrics.of(classes)
        board.record(evaluations, names, self.config.federation.max_weight_share)

    def _record_last(self, board: Scored, replies: Iterable[tuple[Member, EvaluateReply]]) -> None:
        """Keep what the nodes found of the models that they have exported."""
        self._record(board, {member.info.node: reply.evaluation for member, reply in replies})
        board.not_exported = {reply.node: reply.not_exported for _, reply in replies if reply.not_exported}
        for node, reason in board.not_exported.items():
            log.warning("fedkd: %s has not exported its models: %s", node, reason)

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
