"""The best evaluated round is what a run exports, at the server and at every node."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message
from safetensors.torch import load_file
from support.federation import Config, assert_same, held_out, history, nodes, without_seconds
from support.loopback import LoopbackGrid, run_server

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import ConfigError
from fedkd_flwr.messages import EvaluateRequest, TrainRequest
from fedkd_flwr.records import from_records
from fedkd_flwr.server.best_round import BestRound
from fedkd_flwr.tracking.history import History, RoundEntry

BEST_IS_THE_SECOND = {"architecture": "nested", "num_rounds": 5, "learning_rate": 2e-2, "keep_best": "student.accuracy"}
"""Learns so fast that its best round is not its last."""
SOME_SIT_OUT = {"codec": "dense", "fraction_train": 0.4, "min_train_nodes": 1}
"""Their students come whole, so that one who missed the best round is never on its way over it."""


def student_after(run: Path, round: int) -> dict[str, torch.Tensor]:
    (path,) = (p for p in run.glob("checkpoints/*") if json.loads((p / "state.json").read_text())["round"] == round)
    return load_file(path / "student.safetensors")


def snapshots(grid: LoopbackGrid) -> list[tuple[bytes, ...]]:
    """The payloads of every refresh that replaced a student."""
    sent = [from_records(TrainRequest, content).refresh for _, kind, content in grid.log if kind == "train"]
    return [refresh.payloads for refresh in sent if refresh.kind == "snapshot"]


def exported(run: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Student and teachers that a run has left."""
    found = history(run)
    lineage = Path(found["config"]["run.state-dir"], found["lineage"])
    teachers = {path.parts[-3]: load_file(path) for path in lineage.glob("*/teacher/model.safetensors")}
    return teachers | {"student": load_file(run / "student" / "model.safetensors")}


def test_a_run_that_keeps_no_best_round_keeps_no_models_of_rounds(run_config: Config, tmp_path: Path) -> None:
    run_server(LoopbackGrid(run_config(), nodes(2)))
    assert not list(tmp_path.rglob("best"))


@pytest.mark.parametrize("changes", [{}, SOME_SIT_OUT], ids=["all", "some sit out"])
def test_the_best_rounds_student_and_teachers_are_exported(run_config: Config, changes: dict[str, Any]) -> None:
    raw = run_config(**BEST_IS_THE_SECOND | {"keep_checkpoints": 20} | changes)
    grid = LoopbackGrid(raw, nodes(3))
    run = run_server(grid)
    found = history(run)
    best, second = found["best"], found["rounds"][1]
    assert (best["round"], best["metric"], found["ended-early"]) == (2, "student.accuracy", False)
    assert_same(
        {n: t for n, t in exported(run)["student"].items() if n in student_after(run, 2)}, student_after(run, 2)
    )
    assert max(entry["student"]["accuracy"] for entry in found["rounds"]) == second["student"]["accuracy"]

    for node, scores in second["nodes"].items():
        assert best["nodes"][node] == scores
    for node, scores in best["nodes"].items():
        config = nodes(3)[int(node[-1])]
        teacher = Path(raw["run.state-dir"], found["lineage"], node, "teacher")
        assert held_out(raw, config, teacher) == pytest.approx(scores["teacher"], abs=1e-6)
        assert held_out(raw, config, run / "student") == pytest.approx(scores["student"], abs=1e-6)
    trained = {0, 1, 2} if not changes else {int(node[-1]) for node in best["nodes"]}
    assert len(trained) >= 2 and {f"partition-{node}" for node in trained} == best["nodes"].keys()
    assert any(len(payloads) > 1 for payloads in snapshots(grid)) == bool(changes)
    assert len(list(run.glob("best/*"))) == 1
    assert all(len(list(node.glob("best/*"))) <= 1 for node in Path(raw["run.state-dir"], found["lineage"]).iterdir())


@pytest.mark.parametrize(
    ("stop", "changes"),
    [
        ("in round 3", {"num_rounds": 4}),
        ("in round 4", SOME_SIT_OUT | {"num_rounds": 4}),
        ("before the best is exported", {"early_stopping": 1}),
    ],
)
def test_a_resumed_run_exports_the_same(run_config: Config, stop: str, changes: dict[str, Any]) -> None:
    raw = run_config(**BEST_IS_THE_SECOND | changes)
    straight = run_server(LoopbackGrid(raw | {"run.name": "straight"}, nodes(3)))

    class Stop(BaseException):
        pass

    def power_cut(message: Message, deliver: Callable[[], Message]) -> Message:
        if message.metadata.message_type == "train":
            if stop == f"in round {from_records(TrainRequest, message.content).round}":
                deliver()
                raise Stop
        elif message.metadata.message_type == "evaluate":
            last = from_records(EvaluateRequest, message.content)
            if last.use_best and stop == "before the best is exported":
                raise Stop
        return deliver()

    grid = LoopbackGrid(raw, nodes(3))
    grid.fault = power_cut
    with pytest.raises(Stop):
        run_server(grid)
    run = run_server(LoopbackGrid(raw | {"run.resume": str(Path(raw["run.runs-dir"], "run"))}, nodes(3), first_id=900))
    one, other = exported(run), exported(straight)
    assert one.keys() == other.keys()
    for name in one:
        assert_same(one[name], other[name])
    assert history(run)["best"] == history(straight)["best"]
    assert history(run)["ended-early"] == history(straight)["ended-early"]


def test_a_run_without_gain_ends_early_and_can_go_on(run_config: Config, caplog: pytest.LogCaptureFixture) -> None:
    changes = BEST_IS_THE_SECOND | {"num_rounds": 9, "learning_rate_decay": "never"}
    run = run_server(LoopbackGrid(run_config(**changes, early_stopping=1), nodes(3)))
    found = without_seconds(run)
    assert history(run)["ended-early"] and [entry["round"] for entry in found["rounds"]] == [1, 2, 3, 4]
    assert found["rounds"][-1]["student"] is not None and history(run)["best"]["round"] == 2
    assert "ended early, after round 4 of 9: 1 evaluations without a better student.accuracy" in caplog.text
    assert "round 2 of 4 is the best by student.accuracy" in caplog.text

    before = exported(run)
    again = run_config(**changes, early_stopping=1, resume=str(run))
    with pytest.raises(
        ConfigError, match=r"it ended early, after 4 rounds\. To train it further, set federation.early-stopping"
    ):
        run_server(LoopbackGrid(again, nodes(3)))
    run_server(LoopbackGrid(again | {"federation.early-stopping": 0, "num-rounds": 5}, nodes(3)))
    assert len(history(run)["rounds"]) == 5 and not history(run)["ended-early"]
    assert history(run)["best"]["round"] == 2
    assert_same(exported(run)["student"], before["student"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"keep_best": "student.f2"},
            r"'student.f2' .* SCORE accuracy \| macro-f1 \| .* of task 'text-classification'",
        ),
        ({"keep_best": "accuracy"}, r"MODEL student \| teacher in this run"),
        ({"keep_best": "server.loss"}, r"MODEL student \| teacher in this run"),
        ({"keep_best": "student.loss", "method": "local"}, "MODEL teacher in this run"),
        ({"keep_best": "student.mae"}, "SCORE accuracy"),
        ({"early_stopping": 2}, "federation.early-stopping needs a score to wait for: set federation.keep-best"),
    ],
)
def test_a_score_that_no_run_like_this_has_is_refused(run_config: Config, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        RunConfig.parse(run_config(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"keep_best": "student.f1"}, r"needs two labels: here there are accuracy, macro-f1, loss"),
        (
            {"keep_best": "student-own-labels.loss", "logit_adjustment": "always", "shared_head": "never"},
            "'student.loss'",
        ),
    ],
)
def test_a_score_that_these_nodes_lack_is_refused_before_any_training(
    run_config: Config, changes: dict[str, Any], words: str
) -> None:
    grid = LoopbackGrid(run_config(**changes), nodes(2))
    with pytest.raises(ConfigError, match=words):
        run_server(grid)
    assert {kind for _, kind, _ in grid.log} == {"query"}
    assert not Path(grid.run_config["run.runs-dir"], "run").exists()


def best_of(
    defaults: dict[str, Any], metric: str, scores: list[dict[str, float] | None], patience: int = 1
) -> BestRound:
    config = RunConfig.parse(defaults | {"federation.keep-best": metric, "federation.early-stopping": patience})
    rounds = [RoundEntry(round=number, student=found) for number, found in enumerate(scores, 1)]
    return BestRound(config, History(rounds=rounds), Path())


def test_which_round_is_the_best_and_when_a_run_ends(defaults: dict[str, Any]) -> None:
    rising = [{"accuracy": value, "loss": value} for value in (0.5, 0.75, 0.75, 0.25)]
    assert best_of(defaults, "student.accuracy", [*rising]).number == 2
    assert best_of(defaults, "student.loss", [*rising]).number == 4
    assert best_of(defaults, "student.macro-f1", [*rising]).number == 0
    assert best_of(defaults, "student.accuracy", [None, *rising]).number == 3
    gaps = best_of(defaults, "student.accuracy", [rising[1], None, rising[0], None, rising[2], None, None], patience=2)
    assert [gaps.ends(round) for round in range(1, 8)] == [False] * 5 + [True] * 2
    assert not best_of(defaults, "student.accuracy", [rising[1], None, *rising[:1] * 9], patience=0).ends(9)
