"""One local round: the models are filled, scored, trained, and what they learnt is encoded and kept."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW

from fedkd_flwr import tensors
from fedkd_flwr.client.dataset import Prepared
from fedkd_flwr.client.model_cache import PairKey
from fedkd_flwr.client.progress import owed
from fedkd_flwr.client.sampling import Draws, RoundSize, in_random_order
from fedkd_flwr.client.state import NodeState
from fedkd_flwr.codec import EncodedUpdate, ErrorFeedback
from fedkd_flwr.codec.settings import build_codec, codec_settings
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.data import EncodedData
from fedkd_flwr.distillation import (
    LocalTraining,
    Schedule,
    TaskLosses,
    TrainingSummary,
    build_optimizer,
    fit_heads,
    grown,
    load_moments,
    moments,
)
from fedkd_flwr.errors import RunError, StateError
from fedkd_flwr.live.steps import counted
from fedkd_flwr.messages import Evaluation, TrainReply, TrainRequest
from fedkd_flwr.models.build import PairModels
from fedkd_flwr.models.lora import store_frozen_as
from fedkd_flwr.privacy.payout import Terms
from fedkd_flwr.records import pack
from fedkd_flwr.runtime.clock import Clock
from fedkd_flwr.runtime.device import Device, seeded
from fedkd_flwr.tasks.class_weights import WeightedLosses
from fedkd_flwr.tasks.evaluation import OWN_LABELS, evaluate

_PROBED = 512
"""Training examples to which new heads are fitted."""


@dataclass(frozen=True)
class Sent:
    """The update of a round as it is sent, and what the codec still owes after it.

    Attributes:
        update: the encoded update.
        residual: what its encoding dropped, by tensor; with error feedback the next round adds it.
        pays_out: false where the codec owed more than this run's terms let it send, so that it was dropped.
    """

    update: EncodedUpdate
    residual: Mapping[str, Tensor]
    pays_out: bool


@dataclass(frozen=True)
class Workplace:
    """What one client computes with, whichever message it handles.

    Attributes:
        config: the client's run config.
        name: the client's name.
        prepared: its data.
        device: where and how precisely it computes.
        draws: its random numbers.
        size: how much it trains in a round.
        clock: adds up the seconds of each part of its work.
    """

    config: RunConfig
    name: str
    prepared: Prepared
    device: Device
    draws: Draws
    size: RoundSize
    clock: Clock

    @property
    def schedule(self) -> Schedule:
        """How this client's rates fall over the rounds."""
        return Schedule(self.config.train.learning_rate_decay, self.config.num_rounds, self.size.steps)

    @property
    def examples(self) -> EncodedData:
        """The encoded examples; they are encoded where that is not done yet."""
        with self.clock("setup"):
            return self.prepared.examples

    def pair_key(self, shared_head: bool) -> PairKey:
        """The key of the models that this client needs."""
        return PairKey(self.config, self.prepared.labels, shared_head, self.draws.private_seed)


class LocalRound:
    """The models of one client while it handles one message: each step of a round is a method.

    Attributes:
        models: lent to this client alone.
        adjustment: logits, [classes], that are added to what shared heads return; None: nothing is.
    """

    def __init__(self, place: Workplace, models: PairModels, label_shares: Sequence[float]) -> None:
        """Bring the models to the client's device.

        Args:
            place: what the client computes with.
            models: lent to it.
            label_shares: how frequent each label is among all clients' examples; empty: they are not known.
        """
        self._place = place
        self.models = models
        device = place.device.device
        if place.device.autocast is not None:
            store_frozen_as(models.pair, place.device.autocast)
        models.pair.to(device)
        added = place.prepared.adjustment(label_shares)
        self.adjustment = None if added is None else added.to(device)
        self._losses: TaskLosses = place.prepared.task
        if (weights := place.prepared.class_weights(label_shares)) is not None:
            self._losses = WeightedLosses(place.prepared.task, weights.to(device))

    def fill(self, student: Mapping[str, Tensor], state: NodeState) -> dict[str, Tensor]:
        """Give the models these shared tensors and the private ones of a state.

        Returns:
            The values that the teacher uses for its tied parameters, out of training (see `own_share`).

        Raises:
            StateError: the state is of other models.
        """
        groups = self.models.pair.groups()
        with torch.no_grad():
            for parameters, values in ((groups.shared, student), (groups.private, state.private)):
                if tensors.shapes(parameters) != tensors.shapes(values):
                    message = (
                        f"the state of node {self._place.name} is of other models than this run's: remove its folder "
                        "below state-dir, or resume with the run-config of the run that wrote it"
                    )
                    raise StateError(message, outside=message)
                for name, parameter in parameters.items():
                    parameter.copy_(values[name])
            tied, share = groups.tied, self._own_share(state.round)
            return {name: tied[name].lerp(t.to(tied[name].device), share) for name, t in state.tied.items()}

    def evaluate(self, tied: Mapping[str, Tensor]) -> Evaluation:
        """The scores of both models on the held-out examples, the teacher's with these values of tied parameters."""
        place, examples = self._place, self._place.examples.test
        with place.clock("evaluate"):
            scores = evaluate(
                self.models.pair,
                place.prepared.task,
                examples,
                2 * place.config.train.batch_size,
                place.device,
                self.adjustment,
                tied,
            )
        return Evaluation(
            student=scores.get("student"),
            teacher=scores.get("teacher"),
            student_own_labels=scores.get(f"student{OWN_LABELS}"),
            teacher_own_labels=scores.get(f"teacher{OWN_LABELS}"),
            examples=len(examples),
        )

    def fit_new_heads(self) -> None:
        """Fit the heads that are as they were built to what the encoders say of a few training examples."""
        place, layers = self._place, self.models.new_outputs()
        if not layers:
            return
        order = place.draws.of_heads().permutation(place.prepared.train_examples)[:_PROBED]
        examples, task, device = place.examples.train, place.prepared.task, place.device
        with place.clock("train"):
            batches = task.batches(examples, place.config.train.batch_size, [int(index) for index in order])
            fit_heads(self.models.pair, layers, batches, self._losses, device.device, device.autocast, self.adjustment)

    def train(self, round: int, stored: Mapping[str, Tensor]) -> tuple[AdamW, TrainingSummary]:
        """Train both models for one round.

        Args:
            round: from 1.
            stored: the optimiser's moments after the round before.

        Raises:
            RunError: a loss is not finite.
        """
        place, pair = self._place, self.models.pair
        config, seed = place.config, place.draws.of_round(round)
        order = in_random_order(np.random.default_rng(seed), place.prepared.train_examples, place.size.examples)
        with place.clock("state"):
            optimizer = self._optimizer(round, stored)
        examples = place.examples.train
        training = LocalTraining(
            losses=self._losses,
            weights=grown(
                config.distillation, round, place.size.steps, round * len(order) / place.prepared.train_examples
            ),
            mode=config.distillation.loss,
            accumulation=config.train.gradient_accumulation,
            max_grad_norm=config.train.max_grad_norm,
            warm_up=config.train.learning_rate_warm_up,
            left=place.schedule.steps_left(round),
            adjustment=self.adjustment,
            proximal=config.train.proximal,
        )
        device = place.device.device
        with place.clock("train"), seeded(int(seed.generate_state(1)[0]), device):
            try:
                batches = place.prepared.task.batches(examples, config.train.batch_size, order)
                batches = counted(batches, math.ceil(len(order) / config.train.batch_size), place.name)
                summary = training.run(pair.train(), optimizer, batches, device, place.device.autocast)
            except FloatingPointError as error:
                raise RunError(
                    f"node {place.name}, round {round}: {error}; its state is as before. Lower train.learning-rate"
                ) from None
        return optimizer, summary

    def encode(self, round: int, student: Mapping[str, Tensor], state: NodeState, taken: int) -> Sent:
        """Encode what the shared parameters have learnt, and with error feedback what the codec owes.

        Args:
            round: from 1.
            student: the shared tensors before this round's training.
            state: the client's state before this round.
            taken: the last round of which the server took the client's update.
        """
        config, dense = self._place.config, tensors.dense_bytes(student)
        update = {n: p.detach() - student[n].to(p.device) for n, p in self.models.pair.groups().shared.items()}
        settings = codec_settings(config, round, dense)
        codec, pays_out = build_codec(settings), state.terms.pay_out(config, round, dense)
        if not settings.feedback_up:
            return Sent(codec.encode(update), state.residual, pays_out)
        encoded, residual = ErrorFeedback(codec).encode(update, owed(state, taken) if pays_out else {})
        return Sent(encoded, residual, pays_out)

    def state_after(
        self,
        request: TrainRequest,
        student: Mapping[str, Tensor],
        optimizer: AdamW,
        residual: Mapping[str, Tensor],
        reply: TrainReply,
    ) -> NodeState:
        """The client's state once it has trained the round that a request asked for.

        Args:
            request: asked for the round.
            student: the shared tensors before its training.
            optimizer: the optimiser after it.
            residual: what the codec owes.
            reply: the answer, to be repeated where it is lost.
        """
        groups = self.models.pair.groups()
        return NodeState(
            round=request.round,
            version=request.refresh.version,
            student=student,
            private=tensors.snapshot(groups.private),
            tied=tensors.snapshot(groups.tied) if self._own_share(request.round) else {},
            moments=tensors.snapshot(moments(optimizer, groups.trainable)),
            residual=residual,
            reply=pack(reply),
            teacher=self.models.teacher_digest,
            terms=Terms.of(self._place.config),
            run=request.run,
        )

    def _optimizer(self, round: int, stored: Mapping[str, Tensor]) -> AdamW:
        groups = self.models.pair.groups()
        parameters = groups.trainable
        rates = self._place.schedule.rates(self.models.learning_rates, groups.private.keys(), round)
        optimizer = build_optimizer(parameters, rates, self._place.config.train.weight_decay)
        load_moments(optimizer, parameters, stored)
        return optimizer

    def _own_share(self, round: int) -> float:
        return self._place.schedule.own_share(self._place.config.model.teacher_own_share, round)
