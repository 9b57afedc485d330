from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_losses import Classification
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import AdamW

from fedkd_flwr.distillation import (
    LocalTraining,
    Outputs,
    Pair,
    Rate,
    Weights,
    build_optimizer,
    load_moments,
    moments,
)

CPU = torch.device("cpu")


class LinearPair(Pair):
    """Two linear classifiers of four numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.teacher, self.student = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(
        self, batch: Mapping[str, Tensor], adjustment: Tensor | None = None, tied: Mapping[str, Tensor] | None = None
    ) -> tuple[Outputs, Outputs]:
        return Outputs(self.teacher(batch["x"])), Outputs(self.student(batch["x"]))

    def sharable(self) -> dict[str, Parameter]:
        return dict(self.student.named_parameters())


def optimizer_of(pair: Pair, settling: int = 0) -> AdamW:
    parameters = pair.groups().trainable
    return build_optimizer(parameters, dict.fromkeys(parameters, Rate(0.05, settling)))


def batches(count: int, size: int = 6) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "x": torch.randn(size, 4, generator=generator),
            "labels": torch.randint(3, (size,), generator=generator),
        }
        for _ in range(count)
    ]


def trained(data: list[dict[str, Tensor]], weights: Weights | None = None, **parts: float) -> LinearPair:
    pair = LinearPair()
    optimizer = optimizer_of(pair)
    LocalTraining(Classification(), weights or Weights(), **parts).run(pair, optimizer, data, CPU)  # type: ignore[arg-type]
    return pair


def test_both_models_learn_and_the_summary_counts() -> None:
    pair = LinearPair()
    optimizer = optimizer_of(pair)
    training = LocalTraining(Classification(), Weights())
    data = batches(2) * 30
    first = training.run(pair, optimizer, data[:2], CPU)
    last = training.run(pair, optimizer, data, CPU)
    assert (first.steps, first.examples, last.steps, last.examples) == (2, 12, 60, 360)
    assert all(last.losses[name] < first.losses[name] for name in ("teacher", "student"))


def test_accumulated_batches_are_one_step_of_the_joined_batch() -> None:
    """Without distillation the loss is a mean over examples, so batches of equal size add up."""
    halves = batches(2)
    joined = {name: torch.cat([half[name] for half in halves]) for name in halves[0]}
    alone = Weights(0.0, 0.0, 0.0, 0.0)
    accumulated, once = trained(halves, alone, accumulation=2), trained([joined], alone)
    for a, b in zip(accumulated.parameters(), once.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_last_incomplete_accumulation_still_steps() -> None:
    pair = LinearPair()
    optimizer = optimizer_of(pair)
    summary = LocalTraining(Classification(), Weights(), accumulation=4).run(pair, optimizer, batches(6), CPU)
    assert summary.steps == 2


@pytest.mark.parametrize("warm_up", [0, 4])
def test_moments_stored_and_loaded_continue_as_if_never_stopped(warm_up: int) -> None:
    data = batches(6)
    straight = trained(data, warm_up=warm_up)

    pair = LinearPair()
    parameters = pair.groups().trainable
    optimizer = optimizer_of(pair)
    training = LocalTraining(Classification(), Weights(), warm_up=warm_up)
    training.run(pair, optimizer, data[:3], CPU)
    stored = {name: tensor.clone() for name, tensor in moments(optimizer, parameters).items()}
    optimizer = optimizer_of(pair)
    load_moments(optimizer, parameters, stored)
    training.run(pair, optimizer, data[3:], CPU)
    for a, b in zip(straight.parameters(), pair.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("warm_up", "share"), [(0, 1.0), (1, 1.0), (5, 0.2)])
def test_rates_grow_from_the_first_step(warm_up: int, share: float) -> None:
    """Adam's first step is as long as its rate, whatever the gradient."""
    before = {name: p.detach().clone() for name, p in LinearPair().named_parameters()}
    for name, parameter in trained(batches(1), warm_up=warm_up).named_parameters():
        moved = (parameter.detach() - before[name]).abs()
        torch.testing.assert_close(moved, torch.full_like(moved, share * 0.05), rtol=1e-3, atol=0)


@given(st.integers(0, 10), st.lists(st.integers(1, 4), min_size=1, max_size=4))
@settings(max_examples=25)
def test_rates_settle_step_by_step_over_the_last_steps_of_a_run(settling: int, rounds: list[int]) -> None:
    """Whole until then, and evenly down to nothing, one step after the last, however the steps are cut into rounds."""
    pair, seen, total = LinearPair(), list[float](), sum(rounds)
    for steps in rounds:
        optimizer = optimizer_of(pair, settling)
        optimizer.register_step_pre_hook(lambda o, *_: seen.append(o.param_groups[0]["lr"] / 0.05))
        LocalTraining(Classification(), Weights(), left=total - len(seen)).run(pair, optimizer, batches(steps), CPU)
    falling = [share / settling for share in range(settling, 0, -1)]
    assert seen == pytest.approx(([1.0] * total + falling)[-total:])


def test_rates_do_not_settle_in_a_run_without_end() -> None:
    data, pair = batches(3), LinearPair()
    LocalTraining(Classification(), Weights()).run(pair, optimizer_of(pair, settling=2), data, CPU)
    for a, b in zip(trained(data).parameters(), pair.parameters(), strict=True):
        assert torch.equal(a, b)


def test_each_learns_at_its_rate_and_only_matrices_decay() -> None:
    parameters = {"w": Parameter(torch.ones(2, 2)), "b": Parameter(torch.ones(2)), "head": Parameter(torch.ones(2, 2))}
    optimizer = build_optimizer(parameters, {"w": Rate(0.1), "b": Rate(0.1), "head": Rate(1.0)}, weight_decay=0.5)
    settings = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    assert {name: settings[id(p)] for name, p in parameters.items()} == {
        "w": (0.1, 0.5),
        "b": (0.1, 0.0),
        "head": (1.0, 0.5),
    }


def test_gradients_are_clipped_per_model() -> None:
    """Adam forgets the scale of a gradient, so clipping shows in the moments."""
    pair = LinearPair()
    parameters = pair.groups().trainable
    optimizer = optimizer_of(pair)
    LocalTraining(Classification(), Weights(), max_grad_norm=1e-3).run(pair, optimizer, batches(1), CPU)
    for prefix in ("shared", "teacher"):
        stored = moments(optimizer, parameters)
        norm = torch.stack([stored[f"{n}/exp_avg"].norm() for n in parameters if n.startswith(prefix)]).norm()
        assert norm.item() == pytest.approx(0.1 * 1e-3, rel=1e-3)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    data = batches(2)
    data[1]["x"][0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="not finite"):
        trained(data)


def test_bf16_autocast_trains_full_precision_weights() -> None:
    pair = LinearPair()
    optimizer = optimizer_of(pair)
    LocalTraining(Classification(), Weights()).run(pair, optimizer, batches(3), CPU, torch.bfloat16)
    reference = trained(batches(3))
    for a, b in zip(pair.parameters(), reference.parameters(), strict=True):
        assert a.dtype == torch.float32 and not torch.equal(a, b) and torch.allclose(a, b, atol=0.1)
