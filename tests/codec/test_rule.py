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
    all_known, some = (Rule([both[i] for both in tensors], (bits,)) for i in (0, 1))
    nbytes = share * sum(both[0].numel for both in tensors) * bits / 8
    assert some.keeps(bits, nbytes) >= all_known.keeps(bits, nbytes) * (1 - 1e-9)


@given(tensors=st.lists(spectra(), max_size=4), bits=BITS)
def test_states_ascend_and_the_last_keeps_all_but_rounding(tensors: list[tuple[Known, Known]], bits: int) -> None:
    rule = Rule([both[0] for both in tensors], (bits,))
    assert (np.diff(rule.thresholds) > 0).all()
    total = sum(both[0].total for both in tensors)
    assert rule.keeps(bits, 1e9) == pytest.approx(total, rel=0.04)
    assert rule.keeps(bits, 0) == 0


@given(tensors=st.lists(spectra(), max_size=4), bits=BITS, share=st.floats(0, 1.2))
def test_widths_together_are_each_alone(tensors: list[tuple[Known, Known]], bits: int, share: float) -> None:
    known = [both[1] for both in tensors]
    alone, together = Rule(known, (bits,)), Rule(known, (32, 16, 8, 6, 5, 4, 3))
    nbytes = share * sum(tensor.numel for tensor in known) * bits / 8
    assert together.thresholds.tolist() == alone.thresholds.tolist()
    assert together.finest(bits, nbytes) == alone.finest(bits, nbytes)
    assert together.keeps(bits, nbytes) == pytest.approx(alone.keeps(bits, nbytes))


def test_the_finest_state_takes_the_bytes_that_it_is_expected_to() -> None:
    shares = np.cumsum(np.ones(300)) / 300
    rule = Rule([Known(10**6, 2000, 1.0, shares)], (32,))
    assert rule.finest(32, 100 * 8000) == 99
    assert rule.finest(32, 100 * 8000 - 1) == 98
    assert rule.expected(32, 99) == 100 * 8000
    assert rule.thresholds[99] == pytest.approx(99 / 300)
