"""How rates, distillation and a teacher's own share go over the rounds of a run."""

from dataclasses import astuple
from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkd_flwr.config.groups import DistillationConfig
from fedkd_flwr.distillation import Schedule, Weights, grown, loss_weights, used_up

Decay = Literal["never", "staged"]

FIRST = {"shared.head.weight": 0.5, "teacher.head.weight": 0.25}
PRIVATE = {"teacher.head.weight"}
schedules = st.builds(Schedule, st.sampled_from(["never", "staged"]), st.integers(1, 60), st.integers(1, 200))


def test_distillation_grows_over_the_first_rounds_to_its_weights() -> None:
    config = DistillationConfig(student_kl=2.0, hidden=1.0)
    weights = [grown(config, round, steps=10, passes=0.1) for round in range(1, 8)]
    assert [each.student_kl for each in weights] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    assert [each.hidden for each in weights] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("loss", ["stable", "paper"])
def test_other_losses_have_their_weights_from_the_start(loss: Literal["stable", "paper"]) -> None:
    config = DistillationConfig(loss=loss, strength=2.0)
    assert grown(config, 1, steps=2, passes=0.1) == loss_weights(config) == Weights(2.0, 2.0, 0.0, 0.0)


@given(st.floats(0.01, 1e6), st.integers(1, 50))
def test_a_teacher_listens_as_far_as_its_labels_are_used_up(passes: float, round: int) -> None:
    config = DistillationConfig(teacher_kl=2.0)
    weight = grown(config, round, steps=8, passes=passes).teacher_kl
    assert weight == 2.0 * used_up(passes)
    assert weight == 0 if passes <= 1 else 0 < weight <= 2
    assert used_up(passes) <= used_up(passes * 1.5) <= 1


@given(st.floats(0, 10), st.integers(1, 20))
def test_one_dial_turns_all_terms(strength: float, round: int) -> None:
    config = DistillationConfig(hidden=0.5, attention=0.25)
    dialled = config.model_copy(update={"strength": strength})
    one, other = (astuple(grown(each, round, steps=8, passes=3.0)) for each in (config, dialled))
    assert other == pytest.approx([strength * weight for weight in one])


@pytest.mark.parametrize(
    ("decay", "left"), [("never", [1.0] * 6), ("staged", [1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])]
)
def test_full_rates_of_private_parameters_fall_over_the_rounds_and_of_shared_ones_do_not(
    decay: Decay, left: list[float]
) -> None:
    for round, share in enumerate(left, 1):
        found = {name: rate.full for name, rate in Schedule(decay, 6, 8).rates(FIRST, PRIVATE, round).items()}
        assert found == {"shared.head.weight": 0.5, "teacher.head.weight": 0.25 * share}


@given(schedules)
def test_rates_start_whole_never_rise_and_never_end(schedule: Schedule) -> None:
    path = [schedule.rates(FIRST, PRIVATE, round) for round in range(1, schedule.rounds + 1)]
    assert {name: rate.full for name, rate in path[0].items()} == FIRST
    for before, after in pairwise(path):
        assert all(0 < after[name].full <= before[name].full for name in after)


@pytest.mark.parametrize(
    ("rounds", "steps", "settling"),
    [(1, 8, 0), (6, 8, 0), (1, 50, 2), (7, 8, 8), (6, 32, 144), (2, 128, 208)],
)
def test_shared_parameters_settle_in_all_steps_but_the_first_48(rounds: int, steps: int, settling: int) -> None:
    staged, never = (Schedule(decay, rounds, steps).rates(FIRST, PRIVATE, rounds) for decay in ("staged", "never"))  # type: ignore[arg-type]
    assert [rate.settling for rate in staged.values()] == [settling, 0]
    assert [rate.settling for rate in never.values()] == [0, 0]


@given(schedules)
def test_the_steps_that_are_left_are_those_of_all_rounds_to_come(schedule: Schedule) -> None:
    left = [schedule.steps_left(round) for round in range(1, schedule.rounds + 1)]
    assert left == [schedule.steps * rounds for rounds in range(schedule.rounds, 0, -1)]


@pytest.mark.parametrize(
    ("decay", "rounds", "steps", "shares"),
    [
        ("staged", 6, 8, [0.0] * 7),
        ("staged", 2, 128, [0.0, 80 / 208, 1.0]),
        ("staged", 3, 32, [0.0, 0.0, 16 / 48, 1.0]),
        ("never", 2, 128, [0.0] * 3),
    ],
)
def test_a_teacher_keeps_its_own_as_far_as_rates_of_shared_parameters_have_fallen(
    decay: Decay, rounds: int, steps: int, shares: list[float]
) -> None:
    found = [Schedule(decay, rounds, steps).own_share(0.8, round) for round in range(rounds + 1)]
    assert found == pytest.approx([0.8 * share for share in shares])
