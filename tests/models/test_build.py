from collections.abc import Mapping
from itertools import pairwise

import pytest
from support.federation import Config

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.models.build import build_pair, decayed, loss_weights, own_share, warmed_up

LABELS = ("negative", "neutral", "positive")


def rates(raw: dict[str, object]) -> Mapping[str, float]:
    return build_pair(RunConfig.parse(raw), LABELS).learning_rates


@pytest.mark.parametrize(
    ("changes", "student", "teacher"),
    [
        ({}, "shared.", "teacher."),
        ({"architecture": "nested"}, "shared.", "teacher."),
        ({"architecture": "nested", "shared_layers": 3}, "shared.", ("shared.teacher.", "teacher.")),
        ({"method": "fedavg-student"}, "shared.", ()),
        ({"method": "fedavg"}, (), "shared."),
        ({"method": "local"}, (), "teacher."),
    ],
)
def test_students_and_teachers_learn_at_rates_of_their_own(
    run_config: Config, changes: dict[str, object], student: str, teacher: str
) -> None:
    raw = run_config(learning_rate=1.0, teacher_learning_rate=10.0, head_learning_rate_factor=3.0, **changes)
    found = rates(raw)
    of = {who: {name for name in found if name.startswith(names)} for who, names in (("s", student), ("t", teacher))}
    of["s"] -= {name for name in found if name.startswith("shared.teacher.")}
    assert of["s"] | of["t"] | {name for name in found if "projections" in name} >= found.keys()
    for who, rate in (("s", 1.0), ("t", 10.0)):
        for name in of[who]:
            assert found[name] == rate * (3.0 if ".head." in name else 1.0), name


def test_distillation_grows_over_the_first_rounds_to_its_weights(run_config: Config) -> None:
    config = RunConfig.parse(run_config(distillation_warm_up=8, student_kl=2.0, hidden=1.0))
    grown = [warmed_up(config, round, steps=2) for round in range(1, 8)]
    assert [weights.student_kl for weights in grown] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    assert [weights.hidden for weights in grown] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    at_once = RunConfig.parse(run_config(distillation_warm_up=0))
    assert warmed_up(at_once, 1, steps=2) == loss_weights(at_once)


CONSTANT = [1.0] * 6
OWN = {"architecture": "nested", "teacher_own_share": 0.8}
LINEAR = [1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]


@pytest.mark.parametrize(
    ("decay", "stays", "travels"),
    [
        ("never", CONSTANT, CONSTANT),
        ("staged", LINEAR, CONSTANT),
    ],
)
@pytest.mark.parametrize("architecture", ["separate", "nested"])
def test_rates_fall_over_the_rounds(
    run_config: Config, architecture: str, decay: str, stays: list[float], travels: list[float]
) -> None:
    config = RunConfig.parse(run_config(architecture=architecture, learning_rate_decay=decay, num_rounds=6))
    models = build_pair(config, LABELS)
    private = models.pair.private().keys()
    assert {name.startswith("shared.") for name in models.learning_rates if name not in private} == {True}
    for round, (own, shared) in enumerate(zip(stays, travels, strict=True), 1):
        found = {name: rate.full for name, rate in decayed(config, models, round, 8).items()}
        assert found == {
            name: rate * (own if name in private else shared) for name, rate in models.learning_rates.items()
        }


@pytest.mark.parametrize("decay", ["never", "staged"])
@pytest.mark.parametrize("rounds", [1, 2, 3, 100])
def test_rates_start_whole_never_rise_and_never_end(run_config: Config, decay: str, rounds: int) -> None:
    config = RunConfig.parse(run_config(learning_rate_decay=decay, num_rounds=rounds))
    models = build_pair(config, LABELS)
    path = [{n: r.full for n, r in decayed(config, models, round, 8).items()} for round in range(1, rounds + 1)]
    assert path[0] == models.learning_rates
    for before, after in pairwise(path):
        assert all(0 < after[name] <= before[name] for name in after)


@pytest.mark.parametrize(
    ("rounds", "steps", "settling"),
    [(1, 8, 0), (6, 8, 0), (1, 50, 2), (7, 8, 8), (6, 32, 144), (2, 128, 208)],
)
def test_what_travels_settles_in_all_steps_but_the_first_48(
    run_config: Config, rounds: int, steps: int, settling: int
) -> None:
    for decay in ("staged", "never"):
        config = RunConfig.parse(run_config(learning_rate_decay=decay, num_rounds=rounds))
        models = build_pair(config, LABELS)
        private = models.pair.private().keys()
        for name, rate in decayed(config, models, rounds, steps).items():
            assert rate.settling == (settling if decay == "staged" and name not in private else 0), name


@pytest.mark.parametrize(
    ("decay", "rounds", "steps", "shares"),
    [
        ("staged", 6, 8, [0.0] * 7),
        ("staged", 2, 128, [0.0, 80 / 208, 1.0]),
        ("staged", 3, 32, [0.0, 0.0, 16 / 48, 1.0]),
        ("never", 2, 128, [0.0] * 3),
    ],
)
def test_a_teacher_keeps_its_own_as_far_as_rates_of_what_travels_have_fallen(
    run_config: Config, decay: str, rounds: int, steps: int, shares: list[float]
) -> None:
    config = RunConfig.parse(run_config(learning_rate_decay=decay, num_rounds=rounds, **OWN))
    found = [own_share(config, round, steps) for round in range(rounds + 1)]
    assert found == pytest.approx([0.8 * share for share in shares])
