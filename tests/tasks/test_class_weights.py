"""Weighted losses are torch's; what they make of logits is what Bayes' rule gives under weighted label shares."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from fedkd_flwr.tasks.class_weights import CAP, WeightedLosses, class_weights
from fedkd_flwr.tasks.label_priors import adjustment, mean_shares, shares
from fedkd_flwr.tasks.multi_label import MultiLabel
from fedkd_flwr.tasks.single_label import SingleLabel
from fedkd_flwr.tasks.token_classification import UNLABELLED, TokenClassification

COUNTS = st.lists(st.integers(0, 10**6), min_size=2, max_size=6)
TASKS: dict[str, Any] = {
    "one label": SingleLabel(),
    "several labels": object.__new__(MultiLabel),
    "tags": object.__new__(TokenClassification),
}
"""Losses need no tokenizer."""


def batch(name: str, classes: int = 3, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    if name == "tags":
        logits = torch.randn(5, 9, classes, generator=generator, dtype=dtype)
        labels = torch.randint(classes, (5, 9), generator=generator)
        labels[:, 4:] = UNLABELLED
        return logits, labels
    logits = torch.randn(33, classes, generator=generator, dtype=dtype)
    if name == "several labels":
        return logits, torch.randint(2, (33, classes), generator=generator).float()
    return logits, torch.randint(classes, (33,), generator=generator)


def test_weighted_losses_are_torchs() -> None:
    weights = torch.tensor([0.5, 3.0, 1.25])
    for name in ("one label", "tags"):
        logits, labels = batch(name)
        each = nn.CrossEntropyLoss(weight=weights, ignore_index=UNLABELLED, reduction="none")
        found = each(logits.flatten(0, -2), labels.flatten())[labels.flatten() != UNLABELLED]
        torch.testing.assert_close(TASKS[name].task_loss(logits, labels, weights), found.mean())
    logits, labels = batch("several labels")
    expected = nn.BCEWithLogitsLoss(pos_weight=weights)(logits, labels)
    torch.testing.assert_close(TASKS["several labels"].task_loss(logits, labels, weights), expected)


@pytest.mark.parametrize("name", TASKS)
def test_weights_of_one_change_no_bit_and_divergence_has_none(name: str) -> None:
    logits, labels = batch(name)
    plain, weighted = TASKS[name], WeightedLosses(TASKS[name], torch.ones(3))
    grads = []
    for losses in (plain, weighted):
        leaf = logits.clone().requires_grad_()
        loss = losses.task_loss(leaf, labels)
        grads.append((loss.detach(), *torch.autograd.grad(loss, leaf)))
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))
    heavy = WeightedLosses(plain, torch.tensor([9.0, 1.0, 0.1]))
    assert torch.equal(
        heavy.divergence(logits.flip(0), logits, labels), plain.divergence(logits.flip(0), logits, labels)
    )
    assert not torch.equal(heavy.task_loss(logits, labels), grads[0][0])


@pytest.mark.parametrize("name", TASKS)
def test_batches_and_nodes_of_any_mixture_add_up_to_the_loss_of_all(name: str) -> None:
    losses = WeightedLosses(TASKS[name], torch.tensor([0.5, 3.0, 1.25]))
    logits, labels = batch(name)
    order = labels.flatten(1).sum(1).argsort() if labels.ndim > 1 else labels.argsort()
    parts = [losses.task_loss(logits[rows], labels[rows]) * len(rows) for rows in order.split(7)]
    torch.testing.assert_close(sum(parts) / len(labels), losses.task_loss(logits, labels))


@pytest.mark.parametrize("name", TASKS)
def test_gradients_and_precision(name: str) -> None:
    logits, labels = batch(name, dtype=torch.float64)
    losses = WeightedLosses(TASKS[name], torch.tensor([0.5, 3.0, 1.25]))
    assert torch.autograd.gradcheck(lambda x: losses.task_loss(x, labels), logits.requires_grad_())
    assert losses.task_loss(logits.bfloat16(), labels).dtype == torch.float32


@given(COUNTS)
def test_balanced_is_scikit_learns_with_one_example_more_of_each_class(counts: list[int]) -> None:
    found = class_weights("balanced", shares(counts, sum(counts)), "softmax")
    more = torch.tensor(counts) + 1
    expected = more.sum() / (len(counts) * more)
    torch.testing.assert_close(found, expected.clamp(max=CAP), rtol=1e-5, atol=0)


def test_of_many_examples_balanced_is_scikit_learns() -> None:
    counts = [7000, 2000, 1000]
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert class_weights("balanced", shares(counts, 10_000), "softmax") == pytest.approx(expected, rel=2e-3)


@given(COUNTS)
def test_of_several_labels_balanced_is_without_against_with(counts: list[int]) -> None:
    examples = 1 + max(counts)
    found = class_weights("balanced", shares(counts, examples), "sigmoid")
    expected = [min(CAP, (examples - count + 1) / (count + 1)) for count in counts]
    assert found == pytest.approx(expected, rel=1e-5)


def test_what_has_no_example_and_what_is_the_users() -> None:
    balanced = class_weights("balanced", shares([0, 50, 50], 100), "softmax")
    assert balanced is not None and balanced[0] == CAP and balanced[1] == balanced[2]
    assert class_weights("none", (), "softmax") is None
    assert class_weights("1, 2.5,0.1", (), "softmax") == pytest.approx([1, 2.5, 0.1])


def test_with_adjusted_logits_nodes_of_any_shares_agree_and_no_frequency_counts_twice() -> None:
    """The minimiser over all functions of x of each node's expected loss, by gradient descent."""
    generator = torch.Generator().manual_seed(1)
    likelihood = torch.rand(3, 5, generator=generator, dtype=torch.float64)
    likelihood /= likelihood.sum(1, keepdim=True)  # P(x | y), [y, x]
    nodes = [(0.7, 0.2, 0.1), (0.1, 0.1, 0.8)]
    everywhere = mean_shares([(3.0, nodes[0]), (1.0, nodes[1])])
    weights = class_weights("balanced", everywhere, "softmax")
    assert weights is not None
    expected = (likelihood * (torch.tensor(everywhere) * weights)[:, None]).log()
    for own in nodes:
        logits = torch.zeros(5, 3, dtype=torch.float64, requires_grad=True)
        added = adjustment(own, everywhere, "softmax")
        joint = likelihood * torch.tensor(own, dtype=torch.float64)[:, None]
        optimizer = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

        def loss(
            logits: Tensor = logits, added: Tensor = added, joint: Tensor = joint, optimizer: Any = optimizer
        ) -> Tensor:
            optimizer.zero_grad()
            total = -(joint * weights[:, None] * (logits + added).log_softmax(-1).T).sum()
            total.backward()
            return total

        optimizer.step(loss)
        found = logits.detach().T
        torch.testing.assert_close(found - found.mean(0), expected - expected.mean(0), rtol=1e-4, atol=1e-4)
