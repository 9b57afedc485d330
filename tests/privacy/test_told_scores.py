"""No score, count or share that leaves a node with a policy is of a few examples."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.federation import Config, history, silo
from support.loopback import LoopbackGrid, run_server

from fedkd_flwr.config.policy import ScoreLimits
from fedkd_flwr.data import DataReport
from fedkd_flwr.messages import (
    DataCounts,
    EvaluateReply,
    Evaluation,
    JoinReply,
    TrainReply,
)
from fedkd_flwr.privacy.scores import HeldOut, bounded, bounded_report, bounded_shares, floor, middle, weight
from fedkd_flwr.tracking.summary import as_table, read_summary

METRICS = ("accuracy", "macro-f1", "f1", "average-precision", "span-f1", "loss")
COUNTS = st.integers(0, 500)
LIMITS = st.builds(
    ScoreLimits,
    metrics=st.lists(st.sampled_from(METRICS), max_size=3).map(tuple),
    **{"min-held-out": st.integers(1, 60), "min-cell": st.integers(1, 40), "digits": st.integers(1, 6)},
    **{"training-losses": st.booleans()},
)
SCORES = st.none() | st.dictionaries(st.sampled_from(METRICS), st.floats(-5, 5), max_size=5)
CELLS = st.lists(COUNTS, min_size=2, max_size=2).map(lambda n: HeldOut(sum(n), ("O", "B-X"), tuple(n)))
EVALUATIONS = st.builds(
    Evaluation,
    student=SCORES, teacher=SCORES, student_own_labels=SCORES, teacher_own_labels=SCORES, examples=COUNTS,
)  # fmt: skip


def train_reply(evaluation: Evaluation | None, losses: dict[str, float]) -> TrainReply:
    return TrainReply(
        lineage="a" * 16, node="n", round=1, version=0, evaluation=evaluation,
        losses=losses, seconds={}, worker="w", update=b"x",
    )  # fmt: skip


def join_reply(examples: int, counts: dict[str, int]) -> JoinReply:
    return JoinReply(
        node="n", partition=0, title="n", labels=("O", "B-X"), train_examples=max(1, examples),
        data=DataCounts(**counts),
        partitions=0, round=0, version=0, digest="", encoder_digest="", frozen_digest="", teacher_bytes=0, device="",
    )  # fmt: skip


def scores_of(evaluation: Evaluation) -> dict[str, float]:
    found = (evaluation.student, evaluation.teacher, evaluation.student_own_labels, evaluation.teacher_own_labels)
    return {f"{i}{name}": value for i, scores in enumerate(found) for name, value in (scores or {}).items()}


@given(evaluation=EVALUATIONS, held_out=CELLS, limits=LIMITS)
def test_scores_are_coarse_allowed_and_of_enough_examples(
    evaluation: Evaluation, held_out: HeldOut, limits: ScoreLimits
) -> None:
    reply = EvaluateReply(node="n", version=0, evaluation=evaluation, seconds={}, worker="w")
    left = bounded(reply, limits, held_out)
    scores, found = scores_of(left.evaluation), scores_of(evaluation)

    assert scores.items() <= {name: round(value, limits.digits) for name, value in found.items()}.items()
    assert all(name[1:] in limits.metrics for name in scores) or not limits.metrics
    assert not scores or held_out.examples >= limits.min_held_out
    for name in scores:
        if name[1:] in ("f1", "average-precision"):
            assert min(held_out.counts) >= min(limits.min_cell, held_out.examples)
        if name[1:] == "span-f1":
            assert held_out.counts[1] >= min(limits.min_cell, held_out.examples)
    assert left.evaluation.examples % limits.min_cell == 0
    assert not scores or left.evaluation.examples > 0, "a weight of means"
    assert bounded(left, limits, held_out) == left


@given(evaluation=st.none() | EVALUATIONS, held_out=CELLS, limits=LIMITS)
def test_training_losses_leave_only_where_the_owner_says_so(
    evaluation: Evaluation | None, held_out: HeldOut, limits: ScoreLimits
) -> None:
    reply = train_reply(evaluation, {"student": 1 / 3})
    left = bounded(reply, limits, held_out)

    assert left.losses == ({"student": round(1 / 3, limits.digits)} if limits.training_losses else {})
    assert left.update == reply.update
    assert (left.evaluation is None) is (evaluation is None)
    assert bounded(left, limits, held_out) == left


@given(examples=COUNTS, counts=st.fixed_dictionaries(dict.fromkeys(DataCounts.model_fields, COUNTS)), limits=LIMITS)
def test_counts_of_a_node_are_told_in_cells(examples: int, counts: dict[str, int], limits: ScoreLimits) -> None:
    left = bounded(join_reply(examples, counts), limits, HeldOut(0))

    cell = limits.min_cell
    assert left.train_examples % cell == 0 < left.train_examples, "a weight of means"
    assert left.data.longest == 0, "the length of one text"
    assert all(count % cell == 0 for count in left.data.model_dump().values())
    report = bounded_report(DataReport(**counts, classes=(1, 2), held_out=(3,)), limits)
    assert left.data == DataCounts(**{key: getattr(report, key) for key in DataCounts.model_fields})
    assert (report.classes, report.held_out) == ((), ())
    assert bounded(left, limits, HeldOut(0)) == left


@given(counts=st.lists(COUNTS, min_size=2, max_size=6), cell=st.integers(2, 40), extra=COUNTS, label=st.integers(0, 5))
def test_shares_tell_a_label_by_its_step_alone(counts: list[int], cell: int, extra: int, label: int) -> None:
    """Whatever one can work out of shares holds for all nodes whose counts are in the same steps."""
    label %= len(counts)
    moved = [*counts]
    moved[label] = floor(counts[label], cell) + extra % cell
    for examples in (None, max(counts) + extra):
        shares = bounded_shares(counts, examples, cell)
        assert shares == bounded_shares(moved, examples, cell)
        assert all(0 < share < 1 for share in shares)
    assert bounded_shares(counts, None, 1) == tuple((n + 1) / (sum(counts) + 2) for n in counts)


@given(count=COUNTS, cell=st.integers(1, 40))
def test_steps(count: int, cell: int) -> None:
    assert floor(count, cell) <= count < floor(count, cell) + cell
    assert floor(count, cell) <= middle(count, cell) < floor(count, cell) + cell
    assert weight(count, cell) == max(floor(count, cell), cell)


@pytest.fixture
def silos(tweets_csv: Path, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Two nodes with data of their own under a policy with these limits of scores."""
    header, *rows = tweets_csv.read_text().splitlines(keepends=True)

    def build(**limits: Any) -> list[dict[str, Any]]:
        text = "".join(f"{key.replace('_', '-')} = {json.dumps(value)}\n" for key, value in limits.items())
        loose = "[training]\nmin-examples = 1\nmin-batch-size = 1\nmin-grad-norm = 0\nmax-epochs = 1000\n"
        (tmp_path / "policy.toml").write_text(f"{loose}[update]\nmin-compression = 1.0\n[scores]\n{text}")
        found: list[dict[str, Any]] = []
        for name, part in (("east", rows[:120]), ("west", rows[120:])):
            (tmp_path / f"{name}.csv").write_text(header + "".join(part))
            policy = str(tmp_path / "policy.toml")
            found.append(silo(name, tmp_path / f"{name}.csv", tmp_path / "state", policy=policy))
        return found

    return build


def test_one_held_out_example_is_not_scored(
    run_config: Config, silos: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    """Row 5: its loss came back exactly, and by accuracy its label. The run goes on without scores."""
    changes = {
        "max_test_examples": 1,
        "keep_best": "student.accuracy",
        "early_stopping": 1,
        "labels": "negative,neutral,positive",
    }
    folder = run_server(LoopbackGrid(run_config(**changes), silos()))
    found = history(folder)

    assert len(found["rounds"]) == 2 and not found["ended-early"]
    for board in (found["initial"], *found["rounds"]):
        assert board["student"] is None and board["teachers"] is None
        assert {node["test-examples"] for node in board["nodes"].values()} == {0}
        assert all(node["student"] is None and node["teacher"] is None for node in board["nodes"].values())
        assert not board.get("losses") and not board.get("distillation")
    notes = [
        note for board in (found["initial"], *found["rounds"]) for lines in board["notes"].values() for note in lines
    ]
    assert not [note for note in notes if "held-out" in note], "said once, when a node joins"
    assert "No scores yet" in str(as_table(read_summary(folder)).title)


def test_scores_that_leave_are_those_of_the_owners_policy(
    run_config: Config, silos: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    limits = {"metrics": ["accuracy"], "min_held_out": 5, "min_cell": 4, "digits": 1, "training_losses": True}
    folder = run_server(LoopbackGrid(run_config(labels="negative,neutral,positive"), silos(**limits)))
    found = history(folder)

    for board in (found["initial"], *found["rounds"]):
        for node in board["nodes"].values():
            assert node["student"].keys() == node["teacher"].keys() == {"accuracy"}
            assert all(round(value, 1) == value for value in (*node["student"].values(), *node["teacher"].values()))
            assert node["test-examples"] % 4 == 0 < node["test-examples"]
    assert all(entry["losses"] for entry in found["rounds"])
    assert all(
        data["train-examples"] % 4 == data["rows"] % 4 == data["longest"] == 0 for data in found["data"].values()
    )
    card = (tmp_path / "state" / found["lineage"] / "east" / "teacher" / "README.md").read_text()
    assert "macro" in card.lower(), "what stays at the node is whole"
