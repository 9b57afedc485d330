import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkd_flwr.codec import CodecError, EnergySchedule

unit = st.floats(0, 1)


def test_paper_schedule_is_linear() -> None:
    schedule = EnergySchedule(0.95, 0.98)
    assert [schedule(share) for share in (0.0, 1 / 3, 0.5, 1.0)] == pytest.approx([0.95, 0.96, 0.965, 0.98])


@given(start=unit, end=unit, share=unit)
def test_ends_are_exact_and_all_between_them(start: float, end: float, share: float) -> None:
    schedule = EnergySchedule(start, end)
    assert schedule(0) == start
    assert schedule(1) == end
    assert min(start, end) <= schedule(share) <= max(start, end)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_share_outside_of_the_training_is_refused(share: float) -> None:
    with pytest.raises(CodecError, match="share"):
        EnergySchedule(0.95, 0.98)(share)
