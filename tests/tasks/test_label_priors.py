"""Logits adjusted to label frequencies are the posterior that Bayes' rule gives under those frequencies."""

import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedkd_flwr.tasks.label_priors import adjustment, label_counts, mean_shares, shares

COUNTS = st.lists(st.integers(0, 10**6), min_size=2, max_size=6)


def some_shares(counts: list[int]) -> tuple[float, ...]:
    return shares(counts, sum(counts))


def as_tensor(found: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(found, dtype=torch.float64)


@st.composite
def places_and_logits(draw: st.DrawFn) -> tuple[tuple[float, ...], tuple[float, ...], torch.Tensor]:
    classes = draw(st.integers(2, 6))
    counts = st.lists(st.integers(0, 10**6), min_size=classes, max_size=classes)
    logits = st.lists(st.floats(-8, 8), min_size=classes, max_size=classes)
    return some_shares(draw(counts)), some_shares(draw(counts)), torch.tensor(draw(logits), dtype=torch.float64)


@given(places_and_logits())
def test_of_one_label_it_is_bayes_rule(places: tuple[tuple[float, ...], tuple[float, ...], torch.Tensor]) -> None:
    own, everywhere, logits = places
    posterior = logits.softmax(0) * as_tensor(own) / as_tensor(everywhere)
    adjusted = (logits + adjustment(own, everywhere, "softmax")).softmax(0)
    torch.testing.assert_close(adjusted, posterior / posterior.sum(), rtol=1e-4, atol=1e-9)


@given(places_and_logits())
def test_of_several_labels_each_is_bayes_rule_on_its_own(
    places: tuple[tuple[float, ...], tuple[float, ...], torch.Tensor],
) -> None:
    own, everywhere, logits = places
    yes, there, here = logits.sigmoid(), as_tensor(everywhere), as_tensor(own)
    with_it, without = yes * here / there, (1 - yes) * (1 - here) / (1 - there)
    adjusted = (logits + adjustment(own, everywhere, "sigmoid")).sigmoid()
    torch.testing.assert_close(adjusted, with_it / (with_it + without), rtol=1e-4, atol=1e-9)


@given(COUNTS, st.lists(st.floats(1, 1e6), min_size=1, max_size=5), st.sampled_from(["softmax", "sigmoid"]))
def test_where_all_nodes_are_alike_nothing_is_added(counts: list[int], weights: list[float], link: str) -> None:
    own = some_shares(counts)
    everywhere = mean_shares([(weight, own) for weight in weights])
    added = adjustment(own, everywhere, link)  # type: ignore[arg-type]
    torch.testing.assert_close(added, torch.zeros(len(own)), rtol=0, atol=1e-8)


@given(COUNTS)
def test_no_label_is_impossible_and_none_is_certain(counts: list[int]) -> None:
    assert all(0 < share < 1 for share in some_shares(counts))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(4, 6))
def test_every_example_is_counted_under_its_label(labels: list[int], classes: int) -> None:
    column = pa.chunked_array([pa.array(labels, pa.int64())])
    assert label_counts(column, classes) == tuple(labels.count(index) for index in range(classes))


@given(st.lists(st.lists(st.integers(0, 3), unique=True, max_size=4), min_size=1, max_size=20))
def test_of_several_labels_every_one_is_counted(labels: list[list[int]]) -> None:
    column = pa.chunked_array([pa.array(labels, pa.list_(pa.int64()))])
    assert label_counts(column, 4) == tuple(sum(index in found for found in labels) for index in range(4))


def test_large_nodes_count_more() -> None:
    assert mean_shares([(3, (0.2, 0.8)), (1, (0.6, 0.4))]) == pytest.approx((0.3, 0.7))
