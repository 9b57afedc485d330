import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fedkd_flwr.errors import StateError
from fedkd_flwr.tracking.summary import Scores, as_table, read_summary, summarise

SCORES = {"accuracy": 0.5, "macro-f1": 0.4, "loss": 1.0}


def round_of(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "round": number,
        "student": SCORES,
        "teachers": {**SCORES, "accuracy": 0.75},
        "nodes": {},
        "trained": 2,
        "asked": 3,
        "refreshed": 2,
        "failed": {},
        "bytes-up": 200_000,
        "bytes-down": 100_000,
        "seconds": {},
        **changes,
    }


def history_of(*rounds: dict[str, Any], initial: dict[str, Any] | None = SCORES) -> dict[str, Any]:
    return {
        "config": {"task": "text-classification"},
        "sizes": {"teacher-bytes": 30_000_000, "student-bytes": 3_000_000},
        "initial": {"student": initial, "teachers": initial, "bytes-down": 0},
        "rounds": list(rounds),
    }


def test_bytes_are_per_node_that_took_part() -> None:
    row = summarise(history_of(round_of(1))).rounds[1]
    assert (row.up, row.down) == (100_000, 50_000)
    assert row.scores == {"student": Scores(0.5, 0.4), "teachers": Scores(0.75, 0.4)}


def test_ratios_count_both_directions_up_to_the_round() -> None:
    rows = summarise(history_of(round_of(1), round_of(2, **{"bytes-up": 900_000, "trained": 3, "refreshed": 3}))).rounds
    assert rows[1].versus_teacher == pytest.approx(2 * 2 * 30e6 / 300e3)
    assert rows[2].versus_teacher == pytest.approx(2 * 5 * 30e6 / 1300e3)
    assert rows[2].versus_student == pytest.approx(2 * 5 * 3e6 / 1300e3)


def test_who_does_not_train_is_brought_to_the_student_too() -> None:
    """As in the last evaluation, where nodes were sampled before: FedAvg would send them its model."""
    sampled = round_of(1, **{"refreshed": 10, "bytes-down": 1_000_000})
    (_, row) = summarise(history_of(sampled)).rounds
    assert (row.up, row.down) == (100_000, 100_000)
    assert row.versus_teacher == pytest.approx((2 + 10) * 30e6 / 1200e3)


def test_round_without_evaluation_or_success() -> None:
    failed = round_of(1, student=None, teachers=None, trained=0, **{"bytes-up": 0, "bytes-down": 0})
    (row,) = summarise(history_of(failed, initial=None)).rounds
    assert (row.scores, row.up, row.versus_teacher) == ({}, None, None)


def test_where_the_time_of_all_rounds_went_stands_below_the_table() -> None:
    first = {"round": 10.0, "import": 4.0, "train": 6.0, "server": 1.0, "flower": 2.0}
    second = {"round": 8.0, "train": 7.5, "server": 0.5, "flower": 1.0}

    def words(*seconds: dict[str, float]) -> str:
        console = Console(width=80, record=True)
        console.print(as_table(summarise(history_of(*(round_of(n, seconds=s) for n, s in enumerate(seconds, 1))))))
        return " ".join(console.export_text().split())

    deployed = words(first, second)
    assert "18.0 s in 2 rounds: server 1.5, waiting for Flower 3.0, " in deployed
    assert "summed over nodes: train 13.5, import 4.0 (Flower starts a process for every message: import)" in deployed
    assert "summed over nodes: train 7.5" in words(second) and "import" not in words(second)
    assert "server" not in words({})


def test_table_fits_a_terminal_of_80_columns(tmp_path: Path) -> None:
    (tmp_path / "history.json").write_text(
        json.dumps(history_of(round_of(1), round_of(2, student=None, **{"bytes-up": 246_912_000})))
    )
    console = Console(width=80, record=True)
    console.print(as_table(read_summary(tmp_path)))
    cells = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert not any("…" in line for line in cells)
    assert "start 0.500 0.400 0.500 0.400" in cells
    assert "1 2/3 0.500 0.400 0.750 0.400 0.100 0.050 400.0 40.0" in cells
    assert "2 2/3 0.750 0.400 123.456 0.050 1.0 0.1" in cells


def printed(history: dict[str, Any], width: int) -> list[str]:
    console = Console(width=width, record=True)
    console.print(as_table(summarise(history)))
    return [" ".join(line.split()) for line in console.export_text().splitlines()]


def test_models_with_the_labels_of_each_node_have_columns_of_their_own_where_there_are_any() -> None:
    own = {"student-own-labels": {**SCORES, "accuracy": 0.625}, "teachers-own-labels": {**SCORES, "accuracy": 0.875}}
    lines = printed(history_of(round_of(1), round_of(2, **own)), 100)
    assert not any("…" in line for line in lines)
    assert "2 2/3 0.500 0.400 0.625 0.400 0.750 0.400 0.875 0.400 0.100 0.050 400.0 40.0" in lines
    assert "student own labels teacher own labels MB MB than than" in lines
    assert any("as it is shared" in line for line in lines)
    assert "own labels" not in " ".join(printed(history_of(round_of(1)), 100))


def test_the_best_round_is_the_last_line_and_what_is_exported() -> None:
    best = {"round": 1, "metric": "student.accuracy", "student": SCORES, "teachers": SCORES}
    config = {"task": "text-classification", "federation.keep-best": "student.accuracy", "federation.early-stopping": 3}
    lines = printed(history_of(round_of(1), round_of(2)) | {"best": best, "ended-early": True, "config": config}, 80)
    assert "best 1 0.500 0.400 0.500 0.400" in lines
    words = " ".join(lines)
    assert "round 1, by student.accuracy, is exported" in words
    assert "ended early: 3 evaluations without a better student.accuracy" in words


def test_undefined_scores_are_left_out_and_a_footnote_counts_the_nodes_that_have_them() -> None:
    nodes: dict[str, Any] = {"north": {}, "south": {}, "west": {}}
    some = {"nodes": nodes, "nodes-scored": {"span-f1": 2, "precision": 2}}
    none = {"nodes": nodes, "nodes-scored": {"span-f1": 0, "precision": 0}}
    scores = {"accuracy": 0.5, "span-f1": 0.25, "loss": 1.0}
    of_words = {"config": {"task": "token-classification"}}
    found = history_of(round_of(1, **some, student=scores, teachers=scores), initial=None) | of_words
    assert "F1: over 2 of 3 nodes; undefined or withheld at the others" in printed(found, 100)
    scores = {"accuracy": 0.5, "loss": 1.0}
    found = history_of(round_of(1, **none, student=scores, teachers=scores), initial=None) | of_words
    assert "1 2/3 0.500 0.500 0.100 0.050 400.0 40.0" in printed(found, 100)
    assert any("F1: over 0 of 3 nodes" in line for line in printed(found, 100))


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "no results yet"), ("{", "not the history"), ("{}", "not the history of a run: KeyError")],
)
def test_unreadable_history_is_one_line(tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "history.json").write_text(content)
    with pytest.raises(StateError, match=words) as caught:
        read_summary(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
