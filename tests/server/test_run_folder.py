"""A server that is killed while it writes goes on from a whole checkpoint, with whole rows in its ledger."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.killed import killed_at

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import StateError
from fedkd_flwr.server.global_student import GlobalStudent
from fedkd_flwr.server.run_folder import RunFolder, RunState, open_run
from fedkd_flwr.tracking.history import History, RoundEntry
from fedkd_flwr.tracking.traffic_log import TrafficRow

Config = Callable[..., dict[str, Any]]


LINEAGE = 16 * "0"


def after(round: int) -> RunState:
    student = GlobalStudent({"w": torch.full((3, 2), float(round))}, round, [b"update"], {"w": torch.ones(3, 2)})
    history = History(rounds=[RoundEntry(round=n) for n in range(1, round + 1)])
    return RunState(LINEAGE, round, ("no", "yes"), student, history, taken={"north": round} if round else {})


def begun(path: Path, config: RunConfig) -> RunFolder:
    folder = RunFolder.new(path)
    folder.begin(after(0), config)
    return folder


def finish_round(folder: RunFolder, round: int, config: RunConfig) -> None:
    folder.ledger.add([TrafficRow(round, "north", "up", f"layer {n}", "dense", 0, 32, 24, 1.0) for n in range(9)])
    folder.checkpoint(after(round), config)


def test_a_kill_at_any_step_leaves_the_old_checkpoint_or_the_new_one(run_config: Config, tmp_path: Path) -> None:
    config = RunConfig.parse(run_config())
    outcomes = []
    for step in range(1, 200):
        path = tmp_path / str(step)
        folder = begun(path, config)
        finish_round(folder, 1, config)
        killed = killed_at(step, partial(finish_round, folder, 2, config))

        folder, state = RunFolder.resume(path, config)
        assert state.student is not None and len(state.history.rounds) == state.round
        assert float(state.student.tensors["w"][0, 0]) == state.student.version == state.taken["north"] == state.round
        assert folder.ledger.total(1, "up") == 9 * 24
        assert state.round == 1 or folder.ledger.total(2, "up") == 9 * 24
        outcomes.append(state.round)
        finish_round(folder, 3, config)
        assert RunFolder.resume(path, RunConfig.parse(run_config(num_rounds=3)))[1].round == 3
        assert len(list((path / "checkpoints").iterdir())) == 2, "leftovers are swept by the next write"
        if not killed:
            break
    assert not killed, "the write has more steps than were tried"
    assert sorted(outcomes) == outcomes and set(outcomes) == {1, 2}


def test_a_kill_at_any_step_of_the_start_leaves_no_folder_or_one_to_resume(run_config: Config, tmp_path: Path) -> None:
    config = RunConfig.parse(run_config())
    outcomes = []
    for step in range(1, 200):
        path = tmp_path / str(step)
        killed = killed_at(step, partial(begun, path, config))
        outcomes.append(path.exists())
        if path.exists():
            assert RunFolder.resume(path, config)[1].round == 0
        else:
            finish_round(begun(path, config), 1, config)
        if not killed:
            break
    assert not killed, "the start has more steps than were tried"
    assert sorted(outcomes) == outcomes and set(outcomes) == {False, True}


def test_of_two_servers_with_one_run_name_one_goes_on(run_config: Config, tmp_path: Path) -> None:
    config, path = RunConfig.parse(run_config()), tmp_path / "runs" / "run"
    first, second = (RunFolder.new(path) for _ in range(2))
    first.begin(after(0), config)
    finish_round(first, 1, config)
    with pytest.raises(StateError, match=rf"run folder {path} is there already: choose another run.name"):
        second.begin(replace(after(0), lineage=16 * "1"), config)
    assert RunFolder.resume(path, config)[1].round == 1
    assert [each.name for each in path.parent.iterdir()] == ["run"], "the other left nothing"


def test_runs_without_a_name_in_one_second_have_folders_of_their_own(run_config: Config) -> None:
    config = RunConfig.parse(run_config(run_name=""))
    assert len({open_run(config)[0].path for _ in range(9)}) == 9


@pytest.mark.parametrize("there", ["file", "folder"])
def test_what_is_there_already_is_left_alone(run_config: Config, tmp_path: Path, there: str) -> None:
    path = tmp_path / "run"
    if there == "folder":
        path.mkdir()
    mine = path / "mine" if there == "folder" else path
    mine.write_text("mine")
    with pytest.raises(StateError, match="is there already"):
        RunFolder.new(path)
    assert mine.read_text() == "mine"


def test_a_disk_that_refuses_leaves_no_half_of_a_run(
    run_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fedkd_flwr.server.run_folder.save_file", full)
    with pytest.raises(StateError, match=r"cannot write .*runs/run.*No space left"):
        begun(tmp_path / "runs" / "run", RunConfig.parse(run_config()))
    assert list((tmp_path / "runs").iterdir()) == []


def test_titles_lead_to_the_models_of_nodes_on_this_machine(run_config: Config, tmp_path: Path) -> None:
    config = RunConfig.parse(run_config())
    titles = {"a": "../../evil", "b": "St. Mary's / Ward", "c": "st. mary s   ward", "d": "elsewhere", "e": "", "f": ""}
    for node in "abcef":
        (tmp_path / "state" / LINEAGE / node).mkdir(parents=True)
    state = after(0)
    state.history.data = {node: {"title": title} for node, title in titles.items()}
    folder = RunFolder.new(tmp_path / "runs" / "run")
    folder.begin(state, config)
    folder.checkpoint(state, config)
    links = {path.name: path.readlink().name for path in (folder.path / "nodes").iterdir()}
    assert sorted(links.values()) == list("abcef")
    assert {name for name, node in links.items() if node in "abc"} == {"evil", "St.-Mary-s-Ward", "st.-mary-s-ward-c"}


def test_where_links_are_not_possible_a_file_says_the_path(
    run_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    (place := tmp_path / "state" / LINEAGE / "north").mkdir(parents=True)
    state = after(0)
    state.history.data = {"north": {"title": "North"}}
    folder = RunFolder.new(tmp_path / "runs" / "run")
    folder.begin(state, RunConfig.parse(run_config()))
    for _ in range(2):
        folder.write_history(state, RunConfig.parse(run_config()))
        assert (folder.path / "nodes" / "North").read_text() == f"{place}\n"
