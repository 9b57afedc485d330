from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkd_flwr.codec import BudgetSchedule, CodecError, EnergySchedule

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


@given(nbytes=st.integers(10**5, 10**9), rounds=st.integers(1, 200))
def test_budget_is_spent_to_the_last_byte_and_evenly(nbytes: int, rounds: int) -> None:
    schedule = BudgetSchedule(nbytes, rounds)
    budgets = [schedule(round).nbytes for round in range(1, rounds + 1)]
    assert sum(budgets) == nbytes and max(budgets) - min(budgets) <= 1


def test_budget_by_ratio() -> None:
    schedule = BudgetSchedule.of_ratio(128, 1_280_000, 4)
    assert [schedule(round).nbytes for round in range(1, 5)] == [10_000] * 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BudgetSchedule(10, 0), "rounds"),
        (lambda: BudgetSchedule(3, 4), "positive"),
        (lambda: BudgetSchedule.of_ratio(0.5, 100, 1), "ratio"),
        (lambda: BudgetSchedule(10, 2)(0), "1 to 2"),
        (lambda: BudgetSchedule(10, 2)(3), "1 to 2"),
    ],
)
def test_impossible_budget(make: Callable[[], object], message: str) -> None:
    with pytest.raises(CodecError, match=message):
        make()
