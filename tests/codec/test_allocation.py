from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd_flwr.codec import Budget, CodecError, Energy
from fedkd_flwr.codec.allocation import Menu, Offer, spend
from fedkd_flwr.codec.rate_model import Floats, Known

MIXED = (3, 4, 5, 6, 8)


def menu(out: int, rest: int, total: float, energies: Floats, widths: tuple[int, ...], crest: float = 4.4) -> Menu:
    shares = np.cumsum(energies) / total
    return Menu(Known(out * rest, out + rest, total, shares, out, crest), widths)


@st.composite
def menus(draw: st.DrawFn, most: int = 4) -> list[Menu]:
    """Tensors of very different sizes and energies, with any widths."""
    made = []
    widths = draw(st.sampled_from([MIXED, (4,), (32,), (6, 8)]))
    for _ in range(draw(st.integers(0, most))):
        out, rest = draw(st.integers(1, 200)), draw(st.integers(1, 200))
        rank = draw(st.integers(0, min(out, rest, 12)))
        decay = draw(st.floats(0, 3))
        energies = 10.0 ** draw(st.integers(-6, 6)) * np.exp(-decay * np.arange(rank))
        made.append(menu(out, rest, 1.1 * float(energies.sum()), energies, widths, draw(st.floats(1, 100))))
    return made


def totals(offers: list[Offer]) -> tuple[float, float]:
    return sum(offer.nbytes for offer in offers), sum(offer.kept for offer in offers)


@given(made=menus())
def test_menus_are_concave_from_nothing(made: list[Menu]) -> None:
    for menu in made:
        assert menu.nbytes[0] == menu.kept[0] == 0
        assert menu.at(0).choice.kind == "empty"
        slopes = np.diff(menu.kept) / np.diff(menu.nbytes)
        assert (np.diff(menu.nbytes) > 0).all() and (slopes > 0).all()
        assert (np.diff(slopes) <= 1e-9 * slopes[:-1]).all()


@given(made=menus())
def test_choices_are_possible_and_cost_what_they_say(made: list[Menu]) -> None:
    for menu in made:
        for point in range(len(menu.nbytes)):
            choice = menu.at(point).choice
            bits = [width for width, _ in choice.widths]
            assert bits == sorted(set(bits), reverse=True)
            assert all(count > 0 for _, count in choice.widths)
            if choice.kind == "dense":
                assert len(choice.widths) == 1


@settings(deadline=None)
@given(made=menus(), share=st.floats(0, 1.2))
def test_never_over_budget_and_within_one_step_of_the_best(made: list[Menu], share: float) -> None:
    """The bound is that of the linear relaxation: greedy plus what the bytes left over would buy."""
    nbytes = share * sum(float(menu.nbytes[-1]) for menu in made)
    spent, kept = totals(spend(made, nbytes))
    assert spent <= nbytes * (1 + 1e-9)
    steps = sorted(
        (
            (gain / cost, cost)
            for menu in made
            for gain, cost in zip(np.diff(menu.kept), np.diff(menu.nbytes), strict=True)
        ),
        reverse=True,
    )
    relaxed, rest, rate = 0.0, nbytes, 0.0
    for slope, cost in steps:
        relaxed += slope * min(cost, rest)
        if cost > rest:
            rate = slope
            break
        rest -= cost
    assert kept <= relaxed * (1 + 1e-9) + 1e-9
    assert kept >= (relaxed - rate * rest) * (1 - 1e-9) - 1e-9


@settings(max_examples=50, deadline=None)
@given(made=menus(most=3), share=st.floats(0, 1))
def test_no_choice_of_points_is_better_by_more_than_the_bytes_left(made: list[Menu], share: float) -> None:
    """Against all combinations of a few points of each menu."""
    nbytes = share * sum(float(menu.nbytes[-1]) for menu in made)
    spent, kept = totals(spend(made, nbytes))
    few = [sorted({0, len(m.nbytes) - 1, *range(0, len(m.nbytes), 1 + len(m.nbytes) // 8)}) for m in made]
    combinations = (totals([m.at(p) for m, p in zip(made, points, strict=True)]) for points in product(*few))
    best = max(energy for cost, energy in combinations if cost <= nbytes)
    slopes = [float(s) for m in made for s in np.diff(m.kept) / np.diff(m.nbytes)]
    assert best <= kept + max(slopes, default=0) * (nbytes - spent) + 1e-9 * best


def test_large_components_are_sent_precisely_and_small_ones_coarsely() -> None:
    energies = 4.0 ** -np.arange(10)
    (offer,) = spend([menu(100, 100, float(energies.sum()), energies, MIXED)], 900)
    widths = [width for width, count in offer.choice.widths for _ in range(count)]
    assert offer.choice.kind == "factored" and widths == sorted(widths, reverse=True) and len(set(widths)) > 1


def test_flat_spectra_are_sent_number_by_number() -> None:
    (offer,) = spend([menu(100, 100, 100.0, np.ones(100), MIXED)], 9_000)
    assert offer.choice.kind == "dense"


def test_bytes_too_few_for_a_long_step_buy_factors() -> None:
    flat = menu(100, 100, 100.0, np.ones(100), (4,))
    assert flat.at(1).choice.kind == "dense"
    (offer,) = spend([flat], float(flat.nbytes[1]) - 1)
    assert offer.choice.kind == "factored"
    assert offer.kept > 0.5 * flat.kept[1]


@given(made=menus(), share=st.floats(0, 1))
def test_no_choice_is_above_the_menu(made: list[Menu], share: float) -> None:
    for one in made:
        nbytes = share * float(one.nbytes[-1])
        best = one.off_hull(0, nbytes)
        assert best.nbytes <= nbytes
        assert best.kept <= np.interp(nbytes, one.nbytes, one.kept) * (1 + 1e-9)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.1, float("nan")])
def test_shares_out_of_range(share: float) -> None:
    with pytest.raises(CodecError, match="energy"):
        Energy(share)


def test_no_budget() -> None:
    with pytest.raises(CodecError, match="positive"):
        Budget(0)
