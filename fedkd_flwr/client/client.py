"""What a node does with a message: knows data, models and state of one node, and nothing of Flower."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from math import ceil
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW

from fedkd_flwr import tensors
from fedkd_flwr.client.dataset import prepare
from fedkd_flwr.client.kept_models import KeptModels
from fedkd_flwr.client.model_cache import ModelCache, PairKey
from fedkd_flwr.client.state import NodeState, NodeStore
from fedkd_flwr.codec import EncodedUpdate, ErrorFeedback
from fedkd_flwr.codec.settings import build_codec, codec_settings
from fedkd_flwr.config.groups import Value
from fedkd_flwr.config.node_config import config_at_node, is_owned, require_named_labels
from fedkd_flwr.config.policy import policy_of
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.data import DataReport, EncodedData, in_words
from fedkd_flwr.distillation import (
    LocalTraining,
    TaskLosses,
    TrainingSummary,
    batch_norms,
    build_optimizer,
    fit_heads,
    load_moments,
    moments,
    trainable_parameters,
)
from fedkd_flwr.errors import DamagedStateError, ProtocolError, RunError, StateError, at_node
from fedkd_flwr.messages import (
    DataCounts,
    EvaluateReply,
    EvaluateRequest,
    Evaluation,
    JoinReply,
    JoinRequest,
    Refresh,
    TrainReply,
    TrainRequest,
    apply_refresh,
)
from fedkd_flwr.models.build import PairModels, decayed, own_share, warmed_up
from fedkd_flwr.models.compatibility import check_models
from fedkd_flwr.models.export import export, require_bias
from fedkd_flwr.models.lora import merged, store_frozen_as
from fedkd_flwr.models.model_card import About
from fedkd_flwr.names import is_node
from fedkd_flwr.privacy.enforcement import require_allowed, require_examples, require_label_shares
from fedkd_flwr.privacy.payout import Terms
from fedkd_flwr.privacy.scores import AnyReply, bounded, bounded_report, too_few
from fedkd_flwr.privacy.secret import secret_of
from fedkd_flwr.records import pack, unpack
from fedkd_flwr.runtime.clock import Clock, start_seconds
from fedkd_flwr.runtime.device import choose_device, set_threads
from fedkd_flwr.tasks.class_weights import WeightedLosses
from fedkd_flwr.tasks.evaluation import OWN_LABELS, evaluate
from fedkd_flwr.told import told

_WORKER = uuid4().hex[:8]
"""What tells this process from others of its node."""

_PROBED = 512
"""Training examples to which new heads are fitted."""

_KEPT_BACK = "by its new num-rounds a round may send more than before: what the codec had kept back is not sent"


class Node:
    """One node of one run while it handles one message."""

    def __init__(
        self, config: RunConfig, node_config: Mapping[str, Value], model_cache: ModelCache | None = None
    ) -> None:
        """Prepare the node.

        Args:
            config: the run config.
            node_config: the node config.
            model_cache: the process's, for nodes that it serves in turn; None: the node has one of its own.

        Raises:
            FedKDError: node config, data, device or models are not usable; says which and why, and names the node
                where its config does.
        """
        self._clock = Clock()
        self._model_cache = ModelCache() if model_cache is None else model_cache
        self._clock.add("import", start_seconds())
        name = str(node_config.get("name", ""))
        with self._clock("setup"), at_node(name if is_node(name) else ""):
            self._config = config_at_node(config, node_config)
            require_named_labels(self._config, node_config)
            self._policy = policy_of(node_config)
            require_allowed(self._policy, self._config)
            set_threads(self._config.run.threads)
            self._device = choose_device(self._config.run.device, self._config.run.precision)
            self._secret = secret_of(Path(self._config.run.state_dir).absolute(), node_config)
            self._prepared = prepare(self._config, tuple(sorted(node_config.items())))
            require_examples(self._policy, self._prepared.train_examples, self._wanted)
        self.name = self._prepared.name
        partition = node_config.get("partition-id")
        self._partition = int(partition) if partition is not None else 0
        self._owned = is_owned(node_config)
        self._partitions = 0 if self._owned else int(node_config["num-partitions"])
        self._stream = self._partition if partition is not None else zlib.crc32(self.name.encode())

    def join(self, request: JoinRequest) -> JoinReply:
        """Say who this node is and what it holds; make room for this lineage's state.

        Of runs that have finished, this removes what only further training would need.
        """
        key = self._pair_key(shared_head=self._config.model.shared_head != "never")
        with at_node(self.name):
            check_models(self._config)
            with self._built(key):
                if self._prepared.label_shares and self._config.adjusts_logits and self._models.student is not None:
                    require_bias(self._models.student)
                with self._clock("setup"):
                    self._model_cache.try_once(key, self._models, self._device)
        store = self._store(request.lineage)
        notes: tuple[str, ...] = ()
        try:
            state = self._stored(store)
            store.reopen()
        except DamagedStateError as error:
            aside = f"set aside as {store.set_aside().name}, the node starts afresh"
            state, notes = None, (f"{told(error, self._owned)}; it is {aside}",)
        if state is not None and state.slim:
            notes = (
                "this run had finished, and what only training needs (the optimiser's moments, what the codec owed) "
                "was removed when another run joined: these start afresh, the teacher goes on",
            )
        store.slim_others()
        report, limits = self._report(), self._policy and self._policy.scores
        if limits:
            report = bounded_report(report, limits)
            if not self._prepared.held_out.enough(limits):
                notes = (*notes, too_few(limits))
        state = state or self._initial_state()
        reply = JoinReply(
            node=self.name,
            partition=self._partition,
            title=self._prepared.title,
            labels=self._prepared.labels,
            train_examples=self._prepared.train_examples,
            data=DataCounts(**{key: getattr(report, key) for key in DataCounts.model_fields}),
            label_shares=()
            if self._models.student is None
            else self._prepared.shares_in_steps(limits.min_cell if limits else 1),
            partitions=self._partitions,
            round=state.round,
            version=state.version,
            digest=tensors.digest(state.student),
            encoder_digest=tensors.digest({n: t for n, t in state.student.items() if n not in self._models.heads}),
            frozen_digest=self._models.frozen_digest,
            teacher_bytes=self._models.teacher_bytes,
            device=str(self._device),
            notes=(*notes, *in_words(report, self._config.model.max_length)),
        )
        return self._bounded(reply)

    def train(self, request: TrainRequest) -> TrainReply:
        """One round: refresh the student, evaluate if asked, train, encode the update, keep the state.

        Asked again for the round that it trained last, on the same student, it repeats its answer.
        """
        with self._built(self._pair_key(request.shared_head), request.label_shares):
            return self._trained(request)

    def _trained(self, request: TrainRequest) -> TrainReply:
        with self._clock("state"):
            store = self._store(request.lineage)
            held = self._stored(store)
            state = held or self._initial_state()
        if request.round > self._config.num_rounds:
            raise ProtocolError(f"this run has {self._config.num_rounds} rounds, there is no round {request.round}")
        if state.round >= request.round and request.refresh.kind != "snapshot":
            if (state.round, state.version) == (request.round, request.refresh.version):
                return self._bounded(unpack(state.reply))
            raise ProtocolError(
                f"node {self.name} has trained round {state.round} of this lineage, it cannot train {request.round}"
            )
        with self._clock("codec"):
            student = self._refreshed(state, request.refresh)
        with self._clock("state"):
            self._keep_models(store, state, student, request)
            self._put(student, state)
        evaluation = self._evaluate() if request.evaluate else None
        if self._config.fits_heads:
            self._fit_new_heads()

        optimizer, summary = self._train(request.round, state.moments)

        with self._clock("codec"):
            trained = self._models.pair.shared()
            update = {n: p.detach() - student[n].to(p.device) for n, p in trained.items()}
            settings = codec_settings(self._config, request.round, tensors.dense_bytes(student))
            codec, residual = build_codec(settings), state.residual
            pays_out = state.terms.pay_out(self._config, request.round, tensors.dense_bytes(student))
            if settings.feedback_up:
                owed = _owed(state, request.taken) if pays_out else {}
                encoded, residual = ErrorFeedback(codec).encode(update, owed)
            else:
                encoded = codec.encode(update)
        found = TrainReply(
            lineage=request.lineage,
            node=self.name,
            round=request.round,
            version=request.refresh.version,
            evaluation=evaluation,
            losses=dict(summary.losses),
            seconds={},
            worker=_WORKER,
            notes=(*_lost(held, request.taken), *(() if pays_out else (_KEPT_BACK,))),
            update=encoded.to_bytes(),
        )
        reply = self._bounded(found)
        with self._clock("state"):
            store.save(
                NodeState(
                    round=request.round,
                    version=request.refresh.version,
                    student=student,
                    private=tensors.snapshot(self._models.pair.private()),
                    lent=tensors.snapshot(self._models.pair.lent()) if self._own_share(request.round) else {},
                    moments=tensors.snapshot(moments(optimizer, trainable_parameters(self._models.pair))),
                    residual=residual,
                    reply=pack(reply),
                    teacher=self._models.teacher_digest,
                    terms=Terms.of(self._config),
                    run=request.run,
                )
            )
        return reply.model_copy(update={"seconds": self._clock.seconds})

    def evaluate(self, request: EvaluateRequest) -> EvaluateReply:
        """Refresh the student, score it and the teacher, export what is the node's own, keep the student: finished.

        An export that fails costs no scores: the reply says why.
        """
        with self._built(self._pair_key(request.shared_head), request.label_shares):
            return self._evaluated(request)

    def _evaluated(self, request: EvaluateRequest) -> EvaluateReply:
        with self._clock("state"):
            store = self._store(request.lineage)
            held = self._stored(store)
            state = held or self._initial_state()
        with self._clock("codec"):
            student = self._refreshed(state, request.refresh)
        with self._clock("state"):
            self._keep_models(store, state, student, request)
            scored = self._best_models(store, request.best) if request.use_best else replace(state, student=student)
            self._put(scored.student, scored)
        evaluation = self._evaluate()
        not_exported = self._export(store.folder, request, evaluation)
        with self._clock("state"):
            refreshed = replace(state, student=student, version=request.refresh.version, run=request.run)
            store.save(refreshed, unchanged=True, finished=not not_exported)
        reply = EvaluateReply(
            node=self.name,
            version=request.refresh.version,
            evaluation=evaluation,
            not_exported=not_exported,
            seconds=self._clock.seconds,
            worker=_WORKER,
            notes=_lost(held, request.taken),
        )
        return self._bounded(reply)

    def _bounded(self, reply: AnyReply) -> AnyReply:
        """A reply as it may leave."""
        return bounded(reply, self._policy.scores, self._prepared.held_out) if self._policy else reply

    def _pair_key(self, shared_head: bool) -> PairKey:
        return PairKey(self._config, self._prepared.labels, shared_head, self._private_seed)

    @contextmanager
    def _built(self, key: PairKey, label_shares: Sequence[float] = ()) -> Iterator[None]:
        require_label_shares(self._policy, self._prepared.label_shares, label_shares)
        with ExitStack() as lent:
            with self._clock("setup"):
                self._models: PairModels = lent.enter_context(self._model_cache.lend(key))
                if self._models.teacher is not None and self._device.autocast is not None:
                    store_frozen_as(self._models.teacher, self._device.autocast)
                self._models.pair.to(self._device.device)
                added = self._prepared.adjustment(label_shares)
                self._models.pair.adjustment = None if added is None else added.to(self._device.device)
                self._losses: TaskLosses = self._prepared.task
                if (weights := self._prepared.class_weights(label_shares)) is not None:
                    self._losses = WeightedLosses(self._prepared.task, weights.to(self._device.device))
            yield

    def _examples(self) -> EncodedData:
        with self._clock("setup"):
            return self._prepared.examples

    def _report(self) -> DataReport:
        with self._clock("setup"):
            return self._prepared.report

    def _store(self, lineage: str) -> NodeStore:
        return NodeStore(Path(self._config.run.state_dir).absolute(), lineage, self.name)

    def _stored(self, store: NodeStore) -> NodeState | None:
        state = store.load()
        if state is not None and state.teacher != self._models.teacher_digest:
            raise StateError(
                f"the state of node {self.name} in {store.folder} is of another teacher than "
                f"{self._config.model.teacher!r}: "
                "put back node-config keys 'teacher' and 'teacher-lora-rank', or remove that folder to start afresh",
                outside="its state is of another teacher: its owner must put back the teacher, or remove the state",
            )
        if state is not None:
            state.terms.require(self._config, self.name)
        return state

    def _initial_state(self) -> NodeState:
        models = self._models
        return NodeState(0, 0, models.initial_shared, models.initial_private, teacher=models.teacher_digest)

    def _refreshed(self, state: NodeState, refresh: Refresh) -> Mapping[str, Tensor]:
        """The shared tensors at the version that the server asks for."""
        if refresh.kind == "updates" and state.version == refresh.version:
            return state.student
        base = refresh.version - len(refresh.payloads)
        if refresh.kind != "snapshot" and state.version != base:
            raise ProtocolError(
                f"node {self.name} holds version {state.version} of the student, "
                f"this message goes from {base} to {refresh.version}: it needs a snapshot"
            )
        return apply_refresh(state.student, refresh)

    def _keep_models(
        self, store: NodeStore, state: NodeState, student: Mapping[str, Tensor], request: TrainRequest | EvaluateRequest
    ) -> None:
        """Keep what the node is told to, and what it may be told to with the next message; the rest goes.

        Of a round that is to be scored the server says afterwards whether it is the best: by then the node may have
        trained again.
        """
        if not self._config.federation.keep_best:
            return
        kept, wanted = KeptModels(store.folder), {request.best}
        if isinstance(request, TrainRequest) and request.evaluate:
            wanted.add(request.round - 1)
        students = {state.version: state.student, request.refresh.version: student}
        if part := request.refresh.until(request.best, state.version):
            students.setdefault(request.best, apply_refresh(state.student, part))
        for round in wanted & students.keys():
            if 0 < state.round <= round:
                kept.save(round, replace(state, student=students[round]))
        kept.forget(but=wanted)

    def _best_models(self, store: NodeStore, round: int) -> NodeState:
        kept = KeptModels(store.folder)
        if round not in kept:
            message = (
                f"node {self.name} has no models of round {round}, in which it had not trained yet or of which it lost "
                "its state: its newest ones are exported"
            )
            raise StateError(message, outside=message)
        return kept.load(round)

    def _put(self, student: Mapping[str, Tensor], state: NodeState) -> None:
        pair = self._models.pair
        with torch.no_grad():
            for parameters, values in ((pair.shared(), student), (pair.private(), state.private)):
                if tensors.shapes(parameters) != tensors.shapes(values):
                    message = (
                        f"the state of node {self.name} is of other models than this run's: remove its folder "
                        "below state-dir, or resume with the run-config of the run that wrote it"
                    )
                    raise StateError(message, outside=message)
                for name, parameter in parameters.items():
                    parameter.copy_(values[name])
            lent, share = pair.lent(), self._own_share(state.round)
            pair.own = {n: lent[n].lerp(t.to(lent[n].device), share) for n, t in state.lent.items()}

    def _evaluate(self) -> Evaluation:
        examples, task = self._examples().test, self._prepared.task
        with self._clock("evaluate"):
            scores = evaluate(self._models.pair, task, examples, 2 * self._config.train.batch_size, self._device)
        return Evaluation(
            student=scores.get("student"),
            teacher=scores.get("teacher"),
            student_own_labels=scores.get(f"student{OWN_LABELS}"),
            teacher_own_labels=scores.get(f"teacher{OWN_LABELS}"),
            examples=len(examples),
        )

    def _export(self, folder: Path, request: EvaluateRequest, found: Evaluation) -> str:
        """Write what is the node's own as `from_pretrained` folders; returns why that failed, or ""."""
        models, pair, task = self._models, self._models.pair, self._prepared.task
        title, shares = (self._prepared.title,), self._prepared.label_shares if self._config.adjusts_logits else ()
        round = request.best if request.use_best else request.round
        try:
            with self._clock("state"):
                if models.teacher is not None:
                    scores = {"here": found.teacher_own_labels or found.teacher or {}}
                    about = About(self._config, "teacher", round, title, scores, shares)
                    processor, added = task.teacher_processor or task.processor, pair.adjustment if pair.whole else None
                    with merged(models.teacher):
                        export(models.teacher, processor, folder / "teacher", about, added, pair.own)
                added, student = pair.adjustment, models.student
                if student is not None and (added is not None or not request.shared_head or batch_norms(student)):
                    scores = {"here": found.student_own_labels or found.student or {}}
                    about = About(self._config, "student", round, title, scores, shares)
                    export(student, task.processor, folder / "student", about, added)
        except Exception as error:  # also of a library: whatever it is, the scores stand
            return told(error, self._owned)
        return ""

    def _train(self, round: int, stored: Mapping[str, Tensor]) -> tuple[AdamW, TrainingSummary]:
        config, pair = self._config, self._models.pair
        seed = np.random.SeedSequence([config.seed, round, self._stream, *self._secret.words("round")])
        torch.manual_seed(int(seed.generate_state(1)[0]))
        order, steps = self._order(np.random.default_rng(seed)), self._steps
        with self._clock("state"):
            parameters = trainable_parameters(pair)
            optimizer = build_optimizer(
                parameters, decayed(config, self._models, round, steps), config.train.weight_decay
            )
            load_moments(optimizer, parameters, stored)
        training = LocalTraining(
            losses=self._losses,
            weights=warmed_up(config, round, steps),
            mode=config.distillation.loss,
            accumulation=config.train.gradient_accumulation,
            max_grad_norm=config.train.max_grad_norm,
            warm_up=config.train.learning_rate_warm_up,
            left=(config.num_rounds + 1 - round) * steps,
        )
        examples = self._examples().train
        with self._clock("train"):
            try:
                batches = self._prepared.task.batches(examples, config.train.batch_size, order)
                summary = training.run(pair.train(), optimizer, batches, self._device.device, self._device.autocast)
            except FloatingPointError as error:
                raise RunError(
                    f"node {self.name}, round {round}: {error}; its state is as before. Lower train.learning-rate"
                ) from None
        return optimizer, summary

    def _fit_new_heads(self) -> None:
        layers = self._models.new_outputs()
        if layers:
            generator = np.random.default_rng([self._config.seed, 0, self._stream, *self._secret.words("heads")])
            order = generator.permutation(self._prepared.train_examples)[:_PROBED]
            examples, task = self._examples().train, self._prepared.task
            with self._clock("train"):
                batches = task.batches(examples, self._config.train.batch_size, [int(index) for index in order])
                fit_heads(self._models.pair, layers, batches, self._losses, self._device.device, self._device.autocast)

    def _order(self, generator: np.random.Generator) -> list[int]:
        """Indices of the round's training examples."""
        wanted, n = self._wanted, self._prepared.train_examples
        order = np.concatenate([generator.permutation(n) for _ in range(ceil(wanted / n))])
        return [int(index) for index in order[:wanted]]

    def _own_share(self, round: int) -> float:
        return own_share(self._config, round, self._steps)

    @property
    def _private_seed(self) -> int | None:
        """Of new weights that never travel: another one for each run's seed."""
        return self._secret.seed(f"weights of a run with seed {self._config.seed}")

    @property
    def _wanted(self) -> int:
        """Training examples of a round: whole epochs, or as many as the local steps need.

        Batch normalisation needs two in a batch: one more is taken where one would be left over.
        """
        config = self._config
        steps = config.train.local_steps * config.train.gradient_accumulation * config.train.batch_size
        examples = steps or config.train.local_epochs * self._prepared.train_examples
        alone = config.model.batch_norm == "local" and examples % config.train.batch_size == 1
        return examples + 1 if alone else examples

    @property
    def _steps(self) -> int:
        """Local steps of a round."""
        return ceil(ceil(self._wanted / self._config.train.batch_size) / self._config.train.gradient_accumulation)


def _owed(state: NodeState, taken: int) -> Mapping[str, Tensor]:
    """What the server still lacks: the residual, and the last update where that was never taken."""
    if state.round <= taken or not state.reply:
        return state.residual
    lost = EncodedUpdate.from_bytes(unpack(state.reply).update).decode()
    return {name: tensor + lost[name] for name, tensor in state.residual.items()}


def _lost(state: NodeState | None, taken: int) -> tuple[str, ...]:
    """A note where the disk holds less than the server took: a node that never took part has nothing to hold."""
    if taken <= (state.round if state else 0):
        return ()
    if state is None:
        return (f"it has no state of this run, of which it has trained round {taken}: its teacher starts afresh",)
    return (f"it has trained round {taken}, its state is of round {state.round}: its teacher goes on from there",)
