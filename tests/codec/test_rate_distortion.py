from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd_flwr.codec.rate_distortion import OperatingPoint, RateDistortionCurve, allocate
from fedkd_flwr.codec.rate_model import Floats, TensorStatistics

MIXED = (3, 4, 5, 6, 8)


def curve(
    out: int, rest: int, total: float, energies: Floats, widths: tuple[int, ...], crest: float = 4.4
) -> RateDistortionCurve:
    shares = np.cumsum(energies) / total
    return RateDistortionCurve(TensorStatistics(out * rest, out + rest, total, shares, out, crest), widths)


@st.composite
def curves(draw: st.DrawFn, most: int = 4) -> list[RateDistortionCurve]:
    """Tensors of very different sizes and energies, with any widths."""
    made = []
    widths = draw(st.sampled_from([MIXED, (4,), (32,), (6, 8)]))
    for _ in range(draw(st.integers(0, most))):
        out, rest = draw(st.integers(1, 200)), draw(st.integers(1, 200))
        rank = draw(st.integers(0, min(out, rest, 12)))
        decay = draw(st.floats(0, 3))
        energies = 10.0 ** draw(st.integers(-6, 6)) * np.exp(-decay * np.arange(rank))
        made.append(curve(out, rest, 1.1 * float(energies.sum()), energies, widths, draw(st.floats(1, 100))))
    return made


def totals(points: list[OperatingPoint]) -> tuple[float, float]:
    return sum(point.nbytes for point in points), sum(point.energy for point in points)


@given(made=curves())
def test_curves_are_concave_from_nothing(made: list[RateDistortionCurve]) -> None:
    for curve in made:
        assert curve.nbytes[0] == curve.energy[0] == 0
        assert curve.at(0).mode.kind == "empty"
        slopes = np.diff(curve.energy) / np.diff(curve.nbytes)
        assert (np.diff(curve.nbytes) > 0).all() and (slopes > 0).all()
        assert (np.diff(slopes) <= 1e-9 * slopes[:-1]).all()


@given(made=curves())
def test_modes_are_possible_and_cost_what_they_say(made: list[RateDistortionCurve]) -> None:
    for curve in made:
        for position in range(len(curve.nbytes)):
            mode = curve.at(position).mode
            bits = [width for width, _ in mode.widths]
            assert bits == sorted(set(bits), reverse=True)
            assert all(count > 0 for _, count in mode.widths)
            if mode.kind == "dense":
                assert len(mode.widths) == 1


@settings(deadline=None)
@given(made=curves(), share=st.floats(0, 1.2))
def test_never_over_budget_and_within_one_step_of_the_best(made: list[RateDistortionCurve], share: float) -> None:
    """The bound is that of the linear relaxation: greedy plus what the bytes left over would buy."""
    nbytes = share * sum(float(curve.nbytes[-1]) for curve in made)
    spent, kept = totals(allocate(made, nbytes))
    assert spent <= nbytes * (1 + 1e-9)
    steps = sorted(
        (
            (gain / cost, cost)
            for curve in made
            for gain, cost in zip(np.diff(curve.energy), np.diff(curve.nbytes), strict=True)
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
@given(made=curves(most=3), share=st.floats(0, 1))
def test_no_choice_of_points_is_better_by_more_than_the_bytes_left(
    made: list[RateDistortionCurve], share: float
) -> None:
    """Against all combinations of a few points of each curve."""
    nbytes = share * sum(float(curve.nbytes[-1]) for curve in made)
    spent, kept = totals(allocate(made, nbytes))
    few = [sorted({0, len(m.nbytes) - 1, *range(0, len(m.nbytes), 1 + len(m.nbytes) // 8)}) for m in made]
    combinations = (totals([m.at(p) for m, p in zip(made, points, strict=True)]) for points in product(*few))
    best = max(energy for cost, energy in combinations if cost <= nbytes)
    slopes = [float(s) for m in made for s in np.diff(m.energy) / np.diff(m.nbytes)]
    assert best <= kept + max(slopes, default=0) * (nbytes - spent) + 1e-9 * best


def test_large_components_are_sent_precisely_and_small_ones_coarsely() -> None:
    energies = 4.0 ** -np.arange(10)
    (point,) = allocate([curve(100, 100, float(energies.sum()), energies, MIXED)], 900)
    widths = [width for width, count in point.mode.widths for _ in range(count)]
    assert point.mode.kind == "factored" and widths == sorted(widths, reverse=True) and len(set(widths)) > 1


def test_flat_spectra_are_sent_number_by_number() -> None:
    (point,) = allocate([curve(100, 100, 100.0, np.ones(100), MIXED)], 9_000)
    assert point.mode.kind == "dense"


def test_bytes_too_few_for_a_long_step_buy_factors() -> None:
    flat = curve(100, 100, 100.0, np.ones(100), (4,))
    assert flat.at(1).mode.kind == "dense"
    (point,) = allocate([flat], float(flat.nbytes[1]) - 1)
    assert point.mode.kind == "factored"
    assert point.energy > 0.5 * flat.energy[1]


@given(made=curves(), share=st.floats(0, 1))
def test_no_choice_is_above_the_menu(made: list[RateDistortionCurve], share: float) -> None:
    for one in made:
        nbytes = share * float(one.nbytes[-1])
        best = one.best_within(0, nbytes)
        assert best.nbytes <= nbytes
        assert best.energy <= np.interp(nbytes, one.nbytes, one.energy) * (1 + 1e-9)
