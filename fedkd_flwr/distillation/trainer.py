"""The local loop of a node: teacher and student trained together on private data."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from fedkd_flwr.distillation.losses import Mode, TaskLosses, Weights, pair_loss
from fedkd_flwr.distillation.optimizer import steps_taken
from fedkd_flwr.distillation.pair import Pair, adjusted
from fedkd_flwr.distillation.proximal import pull_back
from fedkd_flwr.distillation.schedule import Rate

_INITIAL_SCALE = 2.0**10
"""Of float16 gradients; PyTorch's own start of 2^16 would cost a round of few steps most of them to come down."""


@dataclass(frozen=True)
class TrainingSummary:
    """What local training did.

    Attributes:
        steps: of the optimiser.
        examples: how many were seen.
        losses: mean task loss by model.
        weights: mean weight of each distillation term, as a run-config names it; none of one model alone.
    """

    steps: int
    examples: int
    losses: Mapping[str, float]
    weights: Mapping[str, float]


@dataclass(frozen=True)
class LocalTraining:
    """How a node trains: the settings of the local loop.

    Attributes:
        losses: the task's own loss and divergence.
        weights, mode: of the distillation terms (see `pair_loss`).
        accumulation: batches of one optimiser step.
        max_grad_norm: the gradients of the sharable parameters and of the others are clipped to it, each group on its
            own; 0: never.
        warm_up: steps of the optimiser, from its very first, in which its rates grow to what they are; 0: none.
        left: local steps of the run that are still to come, this training's among them, by which rates settle.
        adjustment: logits, [classes], on the device, that are added to what shared heads return; None: nothing is.
        proximal: mu of FedProx: how strongly shared parameters are held where this training begins; 0: they are not.
    """

    losses: TaskLosses
    weights: Weights
    mode: Mode = "stable"
    accumulation: int = 1
    max_grad_norm: float = 1.0
    warm_up: int = 0
    left: float = math.inf
    adjustment: Tensor | None = None
    proximal: float = 0.0

    def run(
        self,
        pair: Pair,
        optimizer: AdamW,
        batches: Iterable[Mapping[str, Tensor]],
        device: torch.device,
        autocast: torch.dtype | None = None,
    ) -> TrainingSummary:
        """Train `pair`, in place, on `batches`, once through; a last step of fewer batches counts.

        Args:
            pair: on `device`, in training mode.
            optimizer: of its trainable parameters.
            batches: mappings of [B, ...] tensors, `labels` among them.
            device: to which each batch is moved.
            autocast: dtype of mixed precision; None: full precision. float16 scales its gradients.

        Raises:
            FloatingPointError: a loss is not finite; the pair is then spoilt.
        """
        scaler = torch.GradScaler(device.type, init_scale=_INITIAL_SCALE, enabled=autocast is torch.float16)
        schedule = self._schedule(optimizer)
        optimizer.zero_grad()
        groups = [list(pair.sharable().values()), list(pair.unsharable().values())]
        origins = {p: p.detach().clone() for p in pair.groups().shared.values()} if self.proximal else {}
        received = pair.received_student() if self.weights.teacher_kl > 0 else None
        sums: dict[str, Tensor] = {}
        steps = examples = pending = count = 0

        def step() -> None:
            scaler.unscale_(optimizer)
            if self.max_grad_norm > 0:
                for parameters in groups:
                    clip_grad_norm_(parameters, self.max_grad_norm)
            scaler.step(optimizer)
            scaler.update()
            if self.proximal:
                pull_back(optimizer, origins, self.proximal)
            schedule.step()
            optimizer.zero_grad()

        for batch in batches:
            batch = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
            with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
                teacher, student = pair(batch, self.adjustment)
                heard = None if received is None else adjusted(received(batch), self.adjustment)
                loss = pair_loss(
                    teacher,
                    student,
                    batch["labels"],
                    batch.get("attention_mask"),
                    self.losses,
                    self.weights,
                    self.mode,
                    heard,
                )
            torch.autograd.backward(scaler.scale(loss.total / self.accumulation))
            sums = {name: sums.get(name, 0) + task for name, task in loss.tasks.items()}
            examples += len(batch["labels"])
            count += 1
            pending += 1
            if pending == self.accumulation:
                step()
                steps, pending = steps + 1, 0
        if pending:
            step()
            steps += 1

        losses = {name: float(total) / count for name, total in sums.items()}
        for name, mean in losses.items():
            if not math.isfinite(mean):
                raise FloatingPointError(f"the training loss of the {name} is not finite ({mean})")
        weights = asdict(self.weights) if len(losses) > 1 else {}
        weights = {name.replace("_", "-"): weight for name, weight in weights.items()}
        return TrainingSummary(steps, examples, losses, weights)

    def _schedule(self, optimizer: AdamW) -> LambdaLR:
        before = steps_taken(optimizer)

        def share(rate: Rate, step: int) -> float:
            return min(1.0, (before + step + 1) / max(1, self.warm_up)) * rate.share(self.left - step)

        return LambdaLR(optimizer, [partial(share, group["rate"]) for group in optimizer.param_groups])
