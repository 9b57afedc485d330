"""`fedkd clean`: what nodes keep is listed, and only what is ours and asked for is removed."""

import fcntl
import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from fedkd_flwr.cli import main as cli
from fedkd_flwr.cli.clean import lineages
from fedkd_flwr.client.state import NodeState, NodeStore

DONE, LIVE, HALF = (digit * 16 for digit in "abc")


def fill(state_dir: Path) -> None:
    """A finished run of two nodes, one that may go on, one of which one node has finished; and what is not ours."""
    for lineage, name, ends in ((DONE, "done", (True, True)), (LIVE, "live", (False,)), (HALF, "half", (True, False))):
        for number, finished in enumerate(ends):
            store = NodeStore(state_dir, lineage, f"partition-{number}")
            tensors = {"w": torch.ones(500, 500)}
            store.save(NodeState(3, 3, tensors, tensors, run=name, reply=b"x"), finished=finished)
            (store.folder / "teacher").mkdir()
            (store.folder / "teacher" / "model.safetensors").write_bytes(bytes(10))
    for mine in ("thesis", "d" * 16, f"{DONE}/my-notes"):
        (state_dir / mine).mkdir()
        (state_dir / mine / "keep.txt").write_text("mine")
    (state_dir / "examples").mkdir()
    (state_dir / "examples" / "partition-0.arrow").write_bytes(b"examples")
    (state_dir / "linked").mkdir()
    (state_dir / ("e" * 16)).symlink_to(state_dir / LIVE)


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    fill(tmp_path / "state")
    return tmp_path / "state"


def fedkd(state_dir: Path, *arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(cli.app, ["clean", "--state-dir", str(state_dir), *arguments], input=answer)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_runs_are_listed_by_node_with_what_can_be_known_of_them(state_dir: Path) -> None:
    before = files(state_dir)
    result = fedkd(state_dir)
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [DONE, "done", "partition-0", "3", "finished", "just", "now", "2.0"] in rows
    assert [LIVE, "live", "partition-0", "3", "may", "go", "on", "just", "now", "2.0"] in rows
    assert ["partition-1", "3", "may", "go", "on", "just", "now", "2.0"] in rows
    assert "thesis" not in result.stdout and "d" * 16 not in result.stdout and "e" * 16 not in result.stdout
    assert "3 runs, 10.0 MB" in result.stdout
    assert files(state_dir) == before


def test_all_finished_runs_go_and_nothing_else(state_dir: Path) -> None:
    before = files(state_dir)
    assert fedkd(state_dir, "--all-finished", "--yes").exit_code == 0
    gone = {name for name in before if name.startswith(f"{DONE}/partition")}
    assert files(state_dir) == before - gone and gone
    assert (state_dir / DONE / "my-notes" / "keep.txt").read_text() == "mine"
    assert "nothing to remove" in fedkd(state_dir, "--all-finished").stdout


@pytest.mark.parametrize("lineage", [LIVE, HALF])
def test_a_run_that_may_go_on_goes_by_force_only(state_dir: Path, lineage: str) -> None:
    before = files(state_dir)
    result = fedkd(state_dir, "--remove", lineage, "--yes")
    assert result.exit_code == 2 and "may go on" in result.stderr and result.stderr.count("\n") == 1
    assert files(state_dir) == before
    assert fedkd(state_dir, "--remove", lineage, "--yes", "--force").exit_code == 0
    assert not (state_dir / lineage).exists() and (state_dir / DONE).exists()


def test_force_alone_makes_no_live_run_a_finished_one(state_dir: Path) -> None:
    assert fedkd(state_dir, "--all-finished", "--force", "--yes").exit_code == 0
    assert {each.name for each in lineages(state_dir)} == {LIVE, HALF}


def test_a_run_that_joins_again_meanwhile_is_left_alone(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the list and the removal: its mark is gone, or another process holds its lock."""

    def asked(question: str) -> bool:
        act()
        return True

    monkeypatch.setattr("typer.confirm", asked)
    before = files(state_dir)
    with (state_dir / DONE / ".partition-0.lock").open("w") as lock:

        def act() -> None:
            fcntl.flock(lock, fcntl.LOCK_EX)

        assert fedkd(state_dir, "--all-finished").exit_code == 2
    assert files(state_dir) == before
    act = NodeStore(state_dir, DONE, "partition-0").reopen
    assert fedkd(state_dir, "--remove", DONE).exit_code == 2
    assert len(files(state_dir)) == len(before)


@pytest.mark.parametrize("answer", ["n\n", "", "\n"])
def test_nothing_is_removed_without_a_yes(state_dir: Path, answer: str) -> None:
    before = files(state_dir)
    assert fedkd(state_dir, "--remove", DONE, answer=answer).exit_code == 1
    assert files(state_dir) == before
    assert fedkd(state_dir, "--remove", DONE, answer="y\n").exit_code == 0
    assert files(state_dir) < before


@pytest.mark.parametrize("name", ["..", ".", "", "thesis", "../evil", "examples", "d" * 16, "e" * 16, "f" * 16])
def test_what_is_no_lineage_of_ours_is_refused(state_dir: Path, name: str) -> None:
    before = files(state_dir.parent)
    result = fedkd(state_dir, "--remove", name, "--yes", "--force")
    assert result.exit_code == 2 and f"no lineage {name!r}" in result.stderr and result.stderr.count("\n") == 1
    assert files(state_dir.parent) == before


def test_no_state_dir_is_one_line(tmp_path: Path) -> None:
    result = fedkd(tmp_path / "none")
    assert result.exit_code == 2 and "cannot be read" in result.stderr and result.stderr.count("\n") == 1


def test_states_of_another_version_or_damaged_are_said_to_be_so_and_go_by_force_only(state_dir: Path) -> None:
    old, damaged = (state_dir / DONE / f"partition-{number}" for number in range(2))
    for folder, change in ((old, {"format": 4}), (damaged, {"round": None})):
        (manifest,) = folder.glob("0*/state.json")
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change))
    shown = fedkd(state_dir).stdout
    assert "of another version" in shown and "damaged" in shown
    assert fedkd(state_dir, "--remove", DONE, "--yes").exit_code == 2
    assert fedkd(state_dir, "--remove", DONE, "--yes", "--force").exit_code == 0
    assert not old.exists() and not damaged.exists()


def test_what_a_kill_left_half_removed_can_be_removed(state_dir: Path) -> None:
    (state_dir / DONE / "partition-0").rename(state_dir / DONE / ".removing-partition-0")
    assert "half removed" in fedkd(state_dir).stdout
    assert fedkd(state_dir, "--all-finished", "--yes").exit_code == 0
    assert files(state_dir / DONE) == {"my-notes/keep.txt"}
