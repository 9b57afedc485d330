import math
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from fedkd_flwr.distillation import Outputs, Weights, pair_loss
from fedkd_flwr.distillation.losses import MIN_DENOMINATOR, attention_loss, denominator, hidden_loss, similarity_loss


class Classification:
    def task_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels)

    def divergence(self, target_logits: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        target = functional.softmax(target_logits, -1)
        return (target * (target.log() - functional.log_softmax(logits, -1))).sum(-1).mean()


def outputs(seed: int, batch: int = 3, scale: float = 1.0) -> Outputs:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return (scale * torch.randn(*shape, generator=generator)).requires_grad_()

    return Outputs(
        draw(batch, 3),
        tuple(draw(batch, 5, 4) for _ in range(2)),
        tuple(draw(batch, 2, 5, 5) for _ in range(2)),
    )


MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]])
LABELS = torch.tensor([0, 2, 1])
TERMS = [field.name for field in fields(Weights)]
NONE = Weights(*[0.0] * len(TERMS))


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_paper_mode_scales_a_models_own_task_gradient_by_1_minus_d_over_z_squared(scale: float) -> None:
    """d/dL of L + D(L) with D = (KL + M) / Z and Z = L + other is 1 - (KL + M) / Z^2 (fedkd.md, "Trap")."""
    own = torch.tensor(0.05 * scale, requires_grad=True)
    other = torch.tensor(0.05 * scale, requires_grad=True)
    matched = 0.04 + 0.002
    total = own + matched / denominator(own, other, "paper")
    total.backward()
    z = 0.1 * scale
    assert own.grad is not None
    assert own.grad.item() == pytest.approx(1 - matched / z**2, rel=1e-5)
    assert other.grad is None
    if scale == 1.0:
        assert own.grad.item() == pytest.approx(-3.2, abs=0.01)


def test_paper_mode_can_climb_the_task_loss_and_stable_mode_never_does() -> None:
    """The whole loss, differentiated by a factor that scales one model's task loss alone."""
    teacher, student = outputs(0), outputs(1)
    confident = torch.full((3, 3), -4.0).scatter(1, LABELS[:, None], 4.0)

    def slope(mode: str) -> float:
        factor = torch.ones((), requires_grad=True)

        class Scaled(Classification):
            def task_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
                loss = super().task_loss(logits, labels)
                return loss * factor if logits is teacher_now.logits else loss

        teacher_now = replace(teacher.detach(), logits=confident)
        student_now = replace(student.detach(), logits=confident.clone())
        pair_loss(teacher_now, student_now, LABELS, MASK, Scaled(), Weights(), mode).total.backward()  # type: ignore[arg-type, no-untyped-call]
        assert factor.grad is not None
        return factor.grad.item() / Classification().task_loss(confident, LABELS).item()

    assert slope("paper") < 0
    assert slope("stable") == pytest.approx(1.0)


@given(st.floats(0, 1e4), st.floats(0, 1e4))
def test_stable_denominator_is_a_constant_of_at_least_the_floor(own: float, other: float) -> None:
    live = torch.tensor(own, requires_grad=True)
    z = denominator(live, torch.tensor(other), "stable")
    assert not z.requires_grad
    assert z.item() == pytest.approx(max(own + other, MIN_DENOMINATOR), rel=1e-6)


@pytest.mark.parametrize("mode", ["stable", "paper"])
@pytest.mark.parametrize("term", TERMS)
def test_each_term_teaches_exactly_the_models_that_it_is_for(term: str, mode: str) -> None:
    """With one term switched on, only its own models' gradients differ from those of the task alone."""

    def gradients(weights: Weights) -> dict[str, list[Tensor | None]]:
        pair = {"teacher": outputs(0), "student": outputs(1)}
        pair_loss(pair["teacher"], pair["student"], LABELS, MASK, Classification(), weights, mode).total.backward()  # type: ignore[arg-type, no-untyped-call]
        return {name: [t.grad for t in (o.logits, *o.hidden, *o.attentions)] for name, o in pair.items()}

    def equal(a: list[Tensor | None], b: list[Tensor | None]) -> bool:
        return all(
            (x is None and y is None) or (x is not None and y is not None and torch.equal(x, y))
            for x, y in zip(a, b, strict=True)
        )

    alone, with_term = gradients(NONE), gradients(replace(NONE, **{term: 1.0}))
    pupils = {term.removesuffix("_kl")} if term.endswith("_kl") else alone.keys()
    for model in alone:
        assert equal(alone[model], with_term[model]) == (model not in pupils), model


def test_the_loss_is_the_formula(mode: str = "stable") -> None:
    teacher, student = outputs(0), outputs(1)
    losses = Classification()
    task_t, task_s = losses.task_loss(teacher.logits, LABELS), losses.task_loss(student.logits, LABELS)
    h = hidden_loss(teacher.hidden, student.hidden, MASK) + attention_loss(teacher.attentions, student.attentions, MASK)
    kl_t = losses.divergence(student.logits, teacher.logits, LABELS)
    kl_s = losses.divergence(teacher.logits, student.logits, LABELS)
    expected = task_t + task_s + (kl_t + kl_s + 2 * h) / (task_t + task_s)
    loss = pair_loss(teacher, student, LABELS, MASK, losses, Weights(), "stable")
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss.tasks == {"teacher": task_t, "student": task_s}


@given(st.floats(-1e3, 1e3))
def test_padding_does_not_count(noise: float) -> None:
    target, own = outputs(0).detach(), outputs(1).detach()
    padded_hidden = tuple(h + noise * (1 - MASK)[:, :, None] for h in own.hidden)
    assert torch.allclose(hidden_loss(target.hidden, padded_hidden, MASK), hidden_loss(target.hidden, own.hidden, MASK))
    both = MASK[:, None, :, None] * MASK[:, None, None, :]
    padded = tuple(a + noise * (1 - both) for a in own.attentions)
    assert torch.allclose(
        attention_loss(target.attentions, padded, MASK), attention_loss(target.attentions, own.attentions, MASK)
    )


def test_matching_is_the_mean_over_real_tokens() -> None:
    ones, zeros = torch.ones(2, 3, 4), torch.zeros(2, 3, 4)
    mask = torch.tensor([[1, 0, 0], [1, 1, 1]])
    assert hidden_loss([3 * ones], [zeros], mask).item() == pytest.approx(9)
    assert hidden_loss([3 * ones, ones], [zeros, zeros], None).item() == pytest.approx(5)
    first = torch.zeros(2, 3, 4)
    first[0, 0] = 2.0
    assert hidden_loss([first], [zeros], mask).item() == pytest.approx(4 / 4)


def test_attention_of_different_numbers_of_heads_is_averaged() -> None:
    target = torch.stack([torch.zeros(1, 2, 2), 2 * torch.ones(1, 2, 2)], dim=1)
    own = torch.ones(1, 3, 2, 2)
    assert attention_loss([target], [own], None).item() == 0
    assert math.isclose(attention_loss([target], [torch.ones(1, 2, 2, 2)], None).item(), 1.0)


features = st.tuples(st.integers(3, 8), st.integers(2, 6), st.integers(0, 999)).map(
    lambda shape: torch.randn(*shape[:2], generator=torch.Generator().manual_seed(shape[2]), dtype=torch.float64)
)


@given(features, st.floats(0.1, 10), st.integers(0, 99))
def test_similarities_do_not_change_with_the_place_scale_or_turn_of_features(
    x: Tensor, scale: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(x.shape[1], x.shape[1], generator=generator, dtype=x.dtype))
    moved = scale * x @ turn + torch.randn(x.shape[1], generator=generator, dtype=x.dtype)
    assert similarity_loss(x, moved).item() == pytest.approx(0, abs=1e-6)
    wider = torch.cat([x, torch.zeros(len(x), 3)], dim=1)
    assert similarity_loss(wider, x).item() == pytest.approx(0, abs=1e-6)


def test_similarities_that_differ_are_the_mean_square_of_correlations_between_examples() -> None:
    generator = torch.Generator().manual_seed(0)
    target, own = torch.randn(5, 7, generator=generator), torch.randn(5, 3, generator=generator)
    apart = (torch.corrcoef(_centred(target)) - torch.corrcoef(_centred(own))).square()
    assert similarity_loss(_centred(target), _centred(own)).item() == pytest.approx(apart.sum().item() / 20, rel=1e-4)


def _centred(x: Tensor) -> Tensor:
    """Rows and columns of mean 0: then a cosine about the mean row is a correlation."""
    x = x - x.mean(1, keepdim=True)
    return x - x.mean(0, keepdim=True)


@pytest.mark.parametrize("batch", [1, 2])
def test_one_or_two_examples_have_no_similarities_to_differ_in(batch: int) -> None:
    own = torch.randn(batch, 4, requires_grad=True)
    loss = similarity_loss(torch.randn(batch, 6), own)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert own.grad is not None and own.grad.isfinite().all()


def test_a_teacher_hears_what_was_received_and_its_student_hears_the_teacher() -> None:
    teacher, student, received = outputs(1), outputs(2), outputs(3)
    generator = torch.Generator().manual_seed(4)
    own, other = torch.randn(3, 4, generator=generator, requires_grad=True), torch.randn(3, 2, generator=generator)
    teacher, received = replace(teacher, features=own), replace(received.detach(), features=other)
    weights = replace(NONE, teacher_kl=1.0, student_kl=1.0)
    losses = Classification()
    pair_loss(teacher, student, LABELS, MASK, losses, weights, "adaptive", received).total.backward()
    found = teacher.logits.grad, own.grad, student.logits.grad
    again = [outputs(1), outputs(2)]
    plain = pair_loss(*again, LABELS, MASK, losses, weights, "adaptive")
    plain.total.backward()
    torch.testing.assert_close(again[1].logits.grad, found[2])
    assert not torch.allclose(again[0].logits.grad, found[0])  # type: ignore[arg-type]
    assert found[1] is not None and found[1].abs().sum() > 0
