"""What a client does with a message of the server; it knows nothing of Flower."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from torch import Tensor

from fedkd_flwr import tensors
from fedkd_flwr.client.caches import Caches
from fedkd_flwr.client.dataset import Prepared
from fedkd_flwr.client.exports import export_own
from fedkd_flwr.client.kept_models import KeptModels
from fedkd_flwr.client.model_cache import PairKey
from fedkd_flwr.client.progress import earlier_answer, initial_state, lost_rounds, refreshed, stored_state
from fedkd_flwr.client.round import LocalRound, Workplace
from fedkd_flwr.client.sampling import Draws, RoundSize
from fedkd_flwr.client.state import NodeState, NodeStore
from fedkd_flwr.config.groups import Value
from fedkd_flwr.config.node_config import config_at_node, is_owned, require_named_labels
from fedkd_flwr.config.policy import policy_of
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.data import in_words
from fedkd_flwr.errors import DamagedStateError, ProtocolError, at_node
from fedkd_flwr.messages import (
    DataCounts,
    EvaluateReply,
    EvaluateRequest,
    JoinReply,
    JoinRequest,
    TrainReply,
    TrainRequest,
)
from fedkd_flwr.models.compatibility import check_models
from fedkd_flwr.models.export import require_bias
from fedkd_flwr.names import is_node
from fedkd_flwr.privacy.enforcement import require_allowed, require_examples, require_label_shares
from fedkd_flwr.privacy.scores import AnyReply, bounded, bounded_report, too_few
from fedkd_flwr.privacy.secret import secret_of
from fedkd_flwr.runtime.clock import Clock, start_seconds
from fedkd_flwr.runtime.device import choose_device
from fedkd_flwr.told import told

_WORKER = uuid4().hex[:8]
"""What tells this process from others of its node."""

_KEPT_BACK = "by its new num-rounds a round may send more than before: what the codec had kept back is not sent"

_SLIM = (
    "this run had finished, and what only training needs (the optimiser's moments, what the codec owed) was removed "
    "when another run joined: these start afresh, the teacher goes on"
)


class Client:
    """One client of one run: it answers the server's messages.

    Attributes:
        name: the client's name, under which its state lies.
        threads: CPU threads that it may use (see `set_threads`, which the entry of a process calls); 0: all there are.
    """

    def __init__(self, config: RunConfig, node_config: Mapping[str, Value], caches: Caches | None = None) -> None:
        """Prepare the client.

        Args:
            config: the run config.
            node_config: the node config.
            caches: the process's, for clients that it serves in turn; None: the client has its own.

        Raises:
            FedKDError: node config, data or device are not usable; says which and why, and names the node
                where its config does.
        """
        clock, caches = Clock(), Caches() if caches is None else caches
        clock.add("import", start_seconds())
        name, partition = str(node_config.get("name", "")), node_config.get("partition-id")
        with clock("setup"), at_node(name if is_node(name) else ""):
            config = config_at_node(config, node_config)
            require_named_labels(config, node_config)
            self._policy = policy_of(node_config)
            require_allowed(self._policy, config)
            device = choose_device(config.run.device, config.run.precision)
            secret = secret_of(Path(config.run.state_dir).absolute(), node_config)
            prepared = Prepared(config, node_config, caches)
            size = RoundSize.of(config.train, config.model.batch_norm == "local", prepared.train_examples)
            require_examples(self._policy, prepared.train_examples, size.examples)
        self._config, self._prepared, self._clock, self._device = config, prepared, clock, device
        self._model_cache = caches.models
        self.name, self.threads = prepared.name, config.run.threads
        self._owned = is_owned(node_config)
        self._partition = int(partition) if partition is not None else 0
        self._partitions = 0 if self._owned else int(node_config["num-partitions"])
        stream = self._partition if partition is not None else zlib.crc32(self.name.encode())
        self._place = Workplace(config, self.name, prepared, device, Draws(config.seed, stream, secret), size, clock)

    def join(self, request: JoinRequest) -> JoinReply:
        """Say who this client is and what it holds; make room for this lineage's state.

        Of runs that have finished, this removes what only further training would need.
        """
        key = self._place.pair_key(shared_head=self._config.model.shared_head != "never")
        with ExitStack() as lent:
            with at_node(self.name):
                check_models(self._config)
                local = lent.enter_context(self._round(key))
                self._require_usable(key, local)
            store = self._store(request.lineage)
            state, notes = self._resumed(store, local)
            store.slim_others()
            return self._bounded(self._introduction(local, state, notes))

    def train(self, request: TrainRequest) -> TrainReply:
        """One round: refresh the student, evaluate if asked, train, encode the update, keep the state.

        Asked again for the round that it trained last, on the same student, it repeats its answer.
        """
        with self._round(self._place.pair_key(request.shared_head), request.label_shares) as local:
            store, held, state = self._held(request.lineage, local)
            if request.round > self._config.num_rounds:
                raise ProtocolError(f"this run has {self._config.num_rounds} rounds, there is no round {request.round}")
            if (earlier := earlier_answer(state, request, self.name)) is not None:
                return self._bounded(earlier)
            with self._clock("codec"):
                student = refreshed(state, request.refresh, self.name)
            with self._clock("state"):
                self._keep_models(store, state, student, request)
                tied = local.fill(student, state)
            evaluation = local.evaluate(tied) if request.evaluate else None
            if self._config.fits_heads:
                local.fit_new_heads()
            optimizer, summary = local.train(request.round, state.moments)
            with self._clock("codec"):
                sent = local.encode(request.round, student, state, request.taken)
            reply = self._bounded(
                TrainReply(
                    lineage=request.lineage,
                    node=self.name,
                    round=request.round,
                    version=request.refresh.version,
                    evaluation=evaluation,
                    losses=dict(summary.losses),
                    distillation=dict(summary.weights),
                    seconds={},
                    worker=_WORKER,
                    notes=(*lost_rounds(held, request.taken), *(() if sent.pays_out else (_KEPT_BACK,))),
                    update=sent.update.to_bytes(),
                )
            )
            with self._clock("state"):
                store.save(local.state_after(request, student, optimizer, sent.residual, reply))
            return reply.model_copy(update={"seconds": self._clock.seconds})

    def evaluate(self, request: EvaluateRequest) -> EvaluateReply:
        """Refresh the student, score it and the teacher, export what is the client's own, keep the student: finished.

        An export that fails costs no scores: the reply says why.
        """
        with self._round(self._place.pair_key(request.shared_head), request.label_shares) as local:
            store, held, state = self._held(request.lineage, local)
            with self._clock("codec"):
                student = refreshed(state, request.refresh, self.name)
            with self._clock("state"):
                self._keep_models(store, state, student, request)
                scored = replace(state, student=student)
                if request.use_best:
                    scored = KeptModels(store.folder).best(request.best, self.name)
                tied = local.fill(scored.student, scored)
            evaluation, not_exported = local.evaluate(tied), ""
            try:
                with self._clock("state"):
                    export_own(self._place, local, tied, store.folder, request, evaluation)
            except Exception as error:  # also of a library: whatever it is, the scores stand
                not_exported = told(error, self._owned)
            with self._clock("state"):
                now = replace(state, student=student, version=request.refresh.version, run=request.run)
                store.save(now, unchanged=True, finished=not not_exported)
            reply = EvaluateReply(
                node=self.name,
                version=request.refresh.version,
                evaluation=evaluation,
                not_exported=not_exported,
                seconds=self._clock.seconds,
                worker=_WORKER,
                notes=lost_rounds(held, request.taken),
            )
            return self._bounded(reply)

    @contextmanager
    def _round(self, key: PairKey, label_shares: Sequence[float] = ()) -> Iterator[LocalRound]:
        """The models of this key, which belong to this client until the message is handled."""
        require_label_shares(self._policy, self._prepared.label_shares, label_shares)
        with ExitStack() as lent:
            with self._clock("setup"):
                models = lent.enter_context(self._model_cache.lend(key))
                local = LocalRound(self._place, models, label_shares)
            yield local

    def _require_usable(self, key: PairKey, local: LocalRound) -> None:
        """Try the models on all that the run will ask of them."""
        if self._prepared.label_shares and self._config.adjusts_logits and local.models.student is not None:
            require_bias(local.models.student)
        with self._clock("setup"):
            self._model_cache.try_once(key, local.models, self._device)

    def _held(self, lineage: str, local: LocalRound) -> tuple[NodeStore, NodeState | None, NodeState]:
        """The store of a lineage, the state that lies there, and that or the initial one."""
        with self._clock("state"):
            store = self._store(lineage)
            held = stored_state(store, self._config, self.name, local.models)
            return store, held, held or initial_state(local.models)

    def _resumed(self, store: NodeStore, local: LocalRound) -> tuple[NodeState, tuple[str, ...]]:
        """The state with which this run begins at this client, and notes on what it lacks."""
        notes: tuple[str, ...] = ()
        try:
            state = stored_state(store, self._config, self.name, local.models)
            store.reopen()
        except DamagedStateError as error:
            aside = f"set aside as {store.set_aside().name}, the node starts afresh"
            state, notes = None, (f"{told(error, self._owned)}; it is {aside}",)
        if state is not None and state.slim:
            notes = (_SLIM,)
        return state or initial_state(local.models), notes

    def _introduction(self, local: LocalRound, state: NodeState, notes: tuple[str, ...]) -> JoinReply:
        """Who this client is, what it holds, and notes."""
        with self._clock("setup"):
            report = self._prepared.report
        limits = self._policy and self._policy.scores
        if limits:
            report = bounded_report(report, limits)
            if not self._prepared.held_out.enough(limits):
                notes = (*notes, too_few(limits))
        models, prepared = local.models, self._prepared
        return JoinReply(
            node=self.name,
            partition=self._partition,
            title=prepared.title,
            labels=prepared.labels,
            train_examples=prepared.train_examples,
            data=DataCounts(**{key: getattr(report, key) for key in DataCounts.model_fields}),
            label_shares=() if models.student is None else prepared.shares_in_steps(limits.min_cell if limits else 1),
            partitions=self._partitions,
            round=state.round,
            version=state.version,
            digest=tensors.digest(state.student),
            encoder_digest=tensors.digest({n: t for n, t in state.student.items() if n not in models.heads}),
            frozen_digest=models.frozen_digest,
            teacher_bytes=models.teacher_bytes,
            device=str(self._device),
            notes=(*notes, *in_words(report, self._config.model.max_length)),
        )

    def _keep_models(
        self, store: NodeStore, state: NodeState, student: Mapping[str, Tensor], request: TrainRequest | EvaluateRequest
    ) -> None:
        if self._config.federation.keep_best:
            KeptModels(store.folder).keep(state, student, request)

    def _store(self, lineage: str) -> NodeStore:
        return NodeStore(Path(self._config.run.state_dir).absolute(), lineage, self.name)

    def _bounded(self, reply: AnyReply) -> AnyReply:
        """A reply as it may leave."""
        return bounded(reply, self._policy.scores, self._prepared.held_out) if self._policy else reply
