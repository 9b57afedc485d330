"""Runs that share one run.state-dir, at once or one after another, take nothing from each other."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from safetensors.torch import load_file
from support.federation import (
    Config,
    assert_same,
    assert_same_models,
    history,
    nodes,
    round_of,
    silo,
    teachers,
    without_seconds,
)
from support.loopback import LoopbackGrid, run_server

from fedkd_flwr.errors import RunError

CHANGES = {"codec": "budget", "budget": "8x", "error_feedback": "both"}


def exported(folder: Path, state_dir: Path) -> dict[str, Any]:
    """The teachers that the nodes of a run have written for people, by node."""
    found = (state_dir / history(folder)["lineage"]).glob("*/teacher/model.safetensors")
    return {path.parts[-3]: load_file(path) for path in found}


def training_state(folder: Path, state_dir: Path, part: str) -> list[int]:
    """How many tensors the nodes of a run still hold of a part that only training needs."""
    paths = sorted((state_dir / history(folder)["lineage"]).glob(f"*/0*/{part}.safetensors"))
    return [len(load_file(path)) for path in paths]


def test_later_runs_take_no_teacher_of_earlier_ones(run_config: Config, tmp_path: Path) -> None:
    """Three methods compared under one state-dir: each keeps its teachers, and the last one all that training needs."""
    state_dir, found = tmp_path / "state", []
    for method in ("local", "fml", "fedkd"):
        raw = run_config(method=method, run_name=method, num_rounds=1, codec="dense")
        folder = run_server(LoopbackGrid(raw, nodes(2)))
        found.append((folder, teachers(folder), exported(folder, state_dir)))
        assert found[-1][1].keys() == found[-1][2].keys() == {"partition-0", "partition-1"}
        assert all(training_state(folder, state_dir, "moments"))
    for folder, private, written in found:
        for node in private:
            assert_same(teachers(folder)[node], private[node])
            assert_same(exported(folder, state_dir)[node], written[node])
    assert (
        training_state(found[0][0], state_dir, "moments") == training_state(found[1][0], state_dir, "moments") == [0, 0]
    )


def test_a_run_that_waits_while_others_come_and_go_ends_as_if_alone(run_config: Config, tmp_path: Path) -> None:
    """Between its messages other runs join under the same run.state-dir, train and finish."""
    alone = {**CHANGES, "run.state-dir": str(tmp_path / "alone"), "run_name": "alone"}
    straight = run_server(LoopbackGrid(run_config(**alone), nodes(2)))
    others = {("train", 1): "b", ("train", 2): "cd", ("evaluate", None): "e"}

    def others_come_and_go(message: Message, deliver: Callable[[], Message]) -> Message:
        for name in others.pop((message.metadata.message_type, round_of(message, 100)), ""):
            run_server(LoopbackGrid(run_config(num_rounds=1, run_name=name, seed=1), nodes(2), first_id=500))
        return deliver()

    grid = LoopbackGrid(run_config(**CHANGES, run_name="waits"), nodes(2))
    grid.fault = others_come_and_go
    folder = run_server(grid)
    assert not others
    assert_same_models(folder, straight)
    assert without_seconds(folder) == without_seconds(straight)


def test_a_finished_run_that_is_lengthened_after_others_says_what_is_gone(
    run_config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its teachers go on; once it has joined again it is as safe as any other."""
    folder = run_server(LoopbackGrid(run_config(num_rounds=1, energy_end=0.95), nodes(2)))
    kept = teachers(folder)
    run_server(LoopbackGrid(run_config(num_rounds=1, run_name="b"), nodes(2)))
    assert caplog.text.count("start afresh") == 0
    longer = LoopbackGrid(run_config(num_rounds=2, energy_end=0.95, resume=str(folder)), nodes(2))

    def another_joins(message: Message, deliver: Callable[[], Message]) -> Message:
        if round_of(message, 100) == 2:
            for node, tensors in teachers(folder).items():
                assert_same(tensors, kept[node])
            run_server(LoopbackGrid(run_config(num_rounds=1, run_name="c"), nodes(2)))
        return deliver()

    longer.fault = another_joins
    run_server(longer)
    assert caplog.text.count("what only training needs") == 2
    assert history(folder)["rounds"][1]["notes"] == {}


@pytest.mark.parametrize("lost", ["between rounds", "before the last evaluation"])
def test_a_node_that_has_lost_its_state_says_so(
    run_config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture, lost: str
) -> None:
    grid = LoopbackGrid(run_config(num_rounds=2), nodes(2))

    def lose(message: Message, deliver: Callable[[], Message]) -> Message:
        last = message.metadata.message_type == "evaluate" and message.metadata.dst_node_id == 101
        if last if lost == "before the last evaluation" else round_of(message, 101) == 2:
            (folder,) = (tmp_path / "state").glob("*/partition-1")
            if lost == "before the last evaluation":
                newest = max(folder.glob("0*"))
                manifest = json.loads((newest / "state.json").read_text())
                (newest / "state.json").write_text(json.dumps(manifest | {"round": 1}))
            else:
                shutil.rmtree(folder)
        return deliver()

    grid.fault = lose
    last = history(run_server(grid))["rounds"][1]
    (note,) = last["notes"]["partition-1"]
    assert list(last["notes"]) == ["partition-1"] and f"partition-1: {note}" in caplog.text
    if lost == "between rounds":
        assert note == "it has no state of this run, of which it has trained round 1: its teacher starts afresh"
    else:
        assert note == "it has trained round 2, its state is of round 1: its teacher goes on from there"


def test_a_node_that_never_trained_has_nothing_to_lose(run_config: Config) -> None:
    raw = run_config(num_rounds=3, fraction_train=0.4, min_train_nodes=1)
    found = history(run_server(LoopbackGrid(raw, nodes(3))))
    assert [entry["notes"] for entry in found["rounds"]] == [{}, {}, {}]
    assert min(entry["trained"] for entry in found["rounds"]) < 3


@pytest.mark.parametrize("name", ["../../evil", "ward/1", "a\nb"])
def test_a_name_that_is_no_folders_is_refused_at_the_start(
    run_config: Config, tmp_path: Path, tweets_csv: Path, name: str
) -> None:
    before = set(tmp_path.parent.rglob("*"))
    grid = LoopbackGrid(run_config(), [silo(name, tweets_csv, tmp_path / "state"), *nodes(1)])
    with pytest.raises(RunError, match=r"node-config key 'name' should be letters, digits"):
        run_server(grid)
    left = [
        path for path in set(tmp_path.parent.rglob("*")) - before if (tmp_path / "state") not in (path, *path.parents)
    ]
    assert left == [] and not list((tmp_path / "state").glob("[!e]*")), "only the other node's examples"
