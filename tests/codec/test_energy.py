import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkd_flwr.codec.energy import DOUBT, claimed, from_byte, to_byte


@given(st.one_of(st.floats(0, 1), st.floats(0, 1).map(lambda dropped: 1 - DOUBT * dropped)))
def test_a_byte_never_says_more_and_little_less(kept: float) -> None:
    told = from_byte(to_byte(kept))
    dropped = 1 - kept
    assert dropped * (1 - 1e-6) <= 1 - told
    assert 1 - told <= max(2 ** (1 / 12) * dropped, 2.0**-21)
    assert (told == 1) == (kept == 1)


@pytest.mark.parametrize("byte", range(256))
def test_every_byte_is_written_as_it_was_read(byte: int) -> None:
    assert to_byte(from_byte(byte)) == byte


@given(st.floats(allow_nan=True))
def test_claims_are_shares_below_what_was_measured(kept: float) -> None:
    assert 0 <= claimed(kept) <= 1
    assert claimed(kept) <= max(0, kept - DOUBT) or kept != kept
