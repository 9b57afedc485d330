"""What a run leaves is what docs/run-folder.md says, and the page says nothing else."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from support.federation import nodes
from support.loopback import LoopbackGrid, run_server

from fedkd_flwr.tracking.environment import as_variables, start_of
from fedkd_flwr.tracking.finished_run import Run
from fedkd_flwr.tracking.history import BestEntry, History, RoundEntry, ScoreBoard, Scored
from fedkd_flwr.tracking.traffic_log import TRAFFIC, TrafficRow

PAGE = Path(__file__).parent.parent.parent / "docs" / "run-folder.md"


def documented(heading: str) -> list[str]:
    """First column of the table below a heading."""
    sections = re.split(r"^#+ ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    (text,) = (part for part in sections if part.splitlines()[0].replace("`", "") == heading)
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| ")]
    return [name for row in rows[1:] for name in re.findall(r"`([^`]+)`", row)]


def kebab(names: list[str]) -> list[str]:
    return [name.replace("_", "-") for name in names]


def of_type(kind: type) -> list[str]:
    return [field.name for field in fields(kind)]


@pytest.fixture(scope="module")
def folder(tiny_run: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rounds."""
    place = tmp_path_factory.mktemp("documented")
    raw = tiny_run | {"run.runs-dir": str(place / "runs"), "run.state-dir": str(place / "state")}
    return run_server(LoopbackGrid(raw, nodes(2)))


def test_every_field_is_documented(folder: Path) -> None:
    stored = json.loads((folder / "history.json").read_text())
    assert documented("history.json") == list(stored)
    assert documented("A board") == kebab(of_type(ScoreBoard)) == list(stored["initial"])
    assert [*documented("A board"), *documented("A round")] == kebab(of_type(RoundEntry)) == list(stored["rounds"][0])
    assert set(of_type(BestEntry)) - set(of_type(Scored)) == {"round", "metric"}
    assert documented("Data of a node") == list(stored["data"]["partition-0"])
    assert documented("A start of the run") == list(stored["environment"][0])
    assert set(stored["rounds"][0]["seconds"]) == set(documented("Seconds")) - {"import"}
    assert documented("traffic.csv") == of_type(TrafficRow)
    assert (folder / TRAFFIC).read_text().splitlines()[0].split(",") == of_type(TrafficRow)


def test_files_are_documented(folder: Path) -> None:
    named = {name.rstrip("/") for name in documented("What a run leaves")}
    assert not [path.name for path in folder.iterdir() if not any(fnmatch(path.name, name) for name in named)]


def test_the_table_has_all_numbers_of_a_round(folder: Path) -> None:
    history = Run.load(folder).history
    table, last = history.to_pandas(), history.rounds[-1]
    assert table.index.tolist() == [0, 1, 2]
    row = table.loc[2].to_dict()
    assert row["seconds"] == last.seconds["round"] and row["seconds_train"] == last.seconds["train"]
    assert row["weight_student_kl"] == last.distillation["student-kl"] == 1.0
    assert (row["asked"], row["trained"], row["failed"], row["refreshed"]) == (2, 2, 0, 2)
    assert row["loss_teacher"] == last.losses["teacher"]
    assert row["teachers_accuracy"] == last.teachers["accuracy"]  # type: ignore[index]

    patterns = [re.sub(r"[A-Z]+", ".+", name) for name in documented("As a table")]
    assert all(any(re.fullmatch(pattern, column) for pattern in patterns) for column in table.columns)


def test_a_history_comes_back_as_it_was_stored(folder: Path) -> None:
    history = Run.load(folder).history
    assert History.from_dict(json.loads(json.dumps(history.as_dict()))) == history


def test_weights_grow_with_the_warm_up(run_config: Callable[..., dict[str, Any]]) -> None:
    """Three steps a round: none in the first, three of forty in the second; and KL into teachers by the passes."""
    folder = run_server(LoopbackGrid(run_config(**{"distillation.loss": "adaptive"}), nodes(2)))
    weights = [entry.distillation["student-kl"] for entry in Run.load(folder).history.rounds]
    assert weights == pytest.approx([0.0, 3 / 40])


def test_the_command_of_the_user_is_kept_not_that_of_flowers_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/bin/fedkd", "run", ".", "-c", "num-rounds=3 seed=1"])
    variables = as_variables()
    monkeypatch.setattr(sys, "argv", ["/opt/bin/flwr-serverapp", "--token", "secret"])
    assert start_of(1, variables)["command"] == "fedkd run . -c 'num-rounds=3 seed=1'"
    assert start_of(1, {})["command"] == ""


def test_the_revision_says_whether_files_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert start_of(1, {})["git-revision"] == ""
    (tmp_path / "file").write_text("one")
    git = ["git", "-c", "user.name=n", "-c", "user.email=n@example.org"]
    for command in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    clean = start_of(1, {})["git-revision"]
    assert re.fullmatch(r"[0-9a-f]{40}", clean)
    (tmp_path / "file").write_text("two")
    assert start_of(1, {})["git-revision"] == f"{clean}-dirty"
