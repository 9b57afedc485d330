"""New heads start as the best that can be read from the encoders as they are."""

from collections.abc import Sequence

import pytest
import torch
from test_losses import Classification
from test_nested import classifier, nested
from torch import Tensor, nn

from fedkd_flwr.distillation import Single, TeacherStudent, fit_heads
from fedkd_flwr.distillation.linear_probe import RIDGE
from fedkd_flwr.distillation.pair import Pair

CPU = torch.device("cpu")
Batches = Sequence[dict[str, Tensor]]


@pytest.fixture
def batches() -> Batches:
    """40 random texts of 6 tokens in three classes."""
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "input_ids": torch.randint(1, 50, (size, 6), generator=generator),
            "attention_mask": torch.ones(size, 6, dtype=torch.long),
            "labels": torch.randint(3, (size,), generator=generator),
        }
        for size in (16, 16, 8)
    ]


def heads(pair: Pair) -> dict[str, nn.Linear]:
    return {name: getattr(pair, name).head for name in ("teacher", "student")}


def objective(pair: Pair, name: str, batches: Batches, adjustment: Tensor | None = None) -> Tensor:
    """What a fitted layer minimises, from the models' own outputs."""
    seen: list[Tensor] = []
    layer = heads(pair)[name]
    hook = layer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    both = [dict(zip(("teacher", "student"), pair(batch, adjustment), strict=True)) for batch in batches]
    outputs = torch.cat([outputs[name].logits for outputs in both])
    hook.remove()
    square = torch.cat(seen).square().sum(1).mean() * layer.weight.square().sum()
    penalty = RIDGE / 2 * (square + layer.bias.square().sum())
    return Classification().task_loss(outputs, torch.cat([b["labels"] for b in batches])) + penalty


@pytest.mark.parametrize("whole", [False, True])
def test_a_fitted_layer_cannot_be_better(batches: Batches, whole: bool) -> None:
    """The gradient of the objective, of logits adjusted as they are used, is nothing, and the loss is below that of any
    head without weights."""
    pair = nested(4 if whole else 0)
    adjustment = torch.tensor([0.5, -1.0, 2.0])
    fit_heads(pair, heads(pair), batches, Classification(), CPU, adjustment=adjustment)
    for name, layer in heads(pair).items():
        loss = objective(pair, name, batches, adjustment)
        gradients = torch.autograd.grad(loss, list(layer.parameters()))
        assert max(float(gradient.abs().max()) for gradient in gradients) < 1e-3
        labels = torch.cat([batch["labels"] for batch in batches])
        shares = torch.bincount(labels, minlength=3) / len(labels)
        assert float(loss.detach()) < float(-(shares * shares.log()).sum())


def test_nothing_else_changes_and_dropout_does_not_matter(batches: Batches) -> None:
    pair = nested()
    before = {name: parameter.detach().clone() for name, parameter in pair.named_parameters()}
    torch.manual_seed(0)
    state = torch.get_rng_state()
    fit_heads(pair.train(), {"student": pair.student.head}, batches, Classification(), CPU)  # type: ignore[dict-item]
    assert torch.equal(torch.get_rng_state(), state)
    changed = {n for n, parameter in pair.named_parameters() if not torch.equal(parameter, before[n])}
    assert changed == {"student.head.weight", "student.head.bias"}
    assert all(parameter.grad is None for parameter in pair.parameters())


def test_where_a_layer_starts_does_not_matter(batches: Batches) -> None:
    fitted = []
    for seed in (0, 1):
        pair = nested()
        torch.manual_seed(seed)
        nn.init.normal_(pair.teacher.head.weight)  # type: ignore[union-attr, arg-type]
        fit_heads(pair, heads(pair), batches, Classification(), CPU)
        fitted.append(pair.teacher.head.weight.detach().clone())  # type: ignore[union-attr, operator]
    torch.testing.assert_close(*fitted, rtol=0, atol=5e-2)


def test_a_class_that_no_example_has_stays_within_reach(batches: Batches) -> None:
    """Rare, but not ruled out: training brings a head back from there."""
    model = classifier(2, 0)
    known = [batch | {"labels": batch["labels"].clamp(max=1)} for batch in batches]
    fit_heads(Single(model, shared=True), {"student": model.head}, known, Classification(), CPU)
    shares = torch.cat([model.eval()(**batch).logits.softmax(1)[:, 2] for batch in batches]).tolist()
    assert min(shares) > 1e-4 and max(shares) < 2e-2


def test_a_model_that_learns_alone(batches: Batches) -> None:
    model = classifier(2, 0)
    pair = Single(model, shared=True)
    fit_heads(pair, {"student": model.head}, batches, Classification(), CPU)
    accuracy = sum(int((pair(b)[1].logits.argmax(1) == b["labels"]).sum()) for b in batches) / 40  # type: ignore[union-attr]
    assert accuracy > 0.5


class Words(nn.Module):
    """Logits of tokens, [batch, length, 2]: a one-hot vector of the token through a linear layer."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.config = type("Config", (), {"num_hidden_layers": 1, "hidden_size": tokens})
        self.layer = nn.Linear(tokens, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: object) -> object:
        logits = self.layer(nn.functional.one_hot(input_ids, 4).float())
        return type("Output", (), {"logits": logits, "hidden_states": None, "attentions": None})


class WordLosses(Classification):
    def task_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def test_a_teacher_of_other_tokens_is_fitted_at_the_students_words() -> None:
    """Its token 3 begins words of class 1, and 2 those of class 0; at the other places stand others."""
    pair = TeacherStudent(Words(4), Words(4), hidden=False)
    batch = {
        "input_ids": torch.tensor([[0, 1]]),
        "attention_mask": torch.ones(1, 2),
        "labels": torch.tensor([[1, 0]]),
        "teacher.input_ids": torch.tensor([[0, 3, 1, 2]]),
        "teacher.attention_mask": torch.ones(1, 4),
        "teacher.places": torch.tensor([[1, 3]]),
    }
    layers = {"teacher": pair.teacher.layer, "student": pair.student.layer}
    fit_heads(pair, layers, [batch] * 4, WordLosses(), CPU)  # type: ignore[arg-type]
    teacher, student = pair(batch)
    assert teacher.logits.argmax(-1).tolist() == student.logits.argmax(-1).tolist() == [[1, 0]]
