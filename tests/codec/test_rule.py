import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkd_flwr.codec.costs import Known
from fedkd_flwr.codec.rule import Rule

BITS = st.sampled_from([32, 16, 8, 6, 5, 4, 3])


@st.composite
def spectra(draw: st.DrawFn) -> tuple[Known, Known]:
    """A tensor, all of it and a part of it known."""
    out, rest = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    decay = draw(st.floats(0, 2))
    energies = np.exp(-decay * np.arange(min(out, rest)))
    shares = np.cumsum(energies) / energies.sum() if min(out, rest) > 1 else np.zeros(0)
    total = 10.0 ** draw(st.integers(-3, 3))
    known = draw(st.integers(min(1, len(shares)), len(shares)))
    return Known(out * rest, out + rest, total, shares), Known(out * rest, out + rest, total, shares[:known])


@given(tensors=st.lists(spectra(), max_size=4), bits=BITS, share=st.floats(0, 1.2))
def test_what_is_not_known_is_taken_at_its_best(tensors: list[tuple[Known, Known]], bits: int, share: float) -> None:
    all_known, some = Rule([both[0] for both in tensors], bits), Rule([both[1] for both in tensors], bits)
    nbytes = share * sum(both[0].numel for both in tensors) * bits / 8
    assert some.keeps(nbytes) >= all_known.keeps(nbytes) * (1 - 1e-9)


@given(tensors=st.lists(spectra(), max_size=4), bits=BITS)
def test_states_ascend_and_the_last_keeps_all_but_rounding(tensors: list[tuple[Known, Known]], bits: int) -> None:
    rule = Rule([both[0] for both in tensors], bits)
    assert (np.diff(rule.thresholds) > 0).all()
    total = sum(both[0].total for both in tensors)
    assert rule.keeps(1e9) == pytest.approx(total, rel=0.04)
    assert rule.keeps(0) == 0


def test_states_around_a_number_of_bytes_are_few() -> None:
    shares = np.cumsum(np.ones(300)) / 300
    rule = Rule([Known(10**6, 2000, 1.0, shares)], 32)
    states = rule.states(100 * 8000)
    assert list(states) == [99]
    assert rule.thresholds[99] == pytest.approx(99 / 300)
