"""Nothing outside its state-dir is created, changed or removed at a node, whatever a message and a run-config say."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.federation import Config, ask, nodes, silo
from support.loopback import LoopbackGrid, run_server

from fedkd_flwr.client.state import NodeState, NodeStore
from fedkd_flwr.errors import ConfigError
from fedkd_flwr.messages import (
    EvaluateRequest,
    JoinRequest,
    Refresh,
    TrainRequest,
)
from fedkd_flwr.names import is_lineage
from fedkd_flwr.server.run_folder import RUNS_DIR

LINEAGE = 16 * "a"
Found = dict[str, tuple[int, bytes]]


@pytest.fixture
def place(tmp_path: Path, tweets_csv: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine: an owner's folder, where the node was started, and folders of others that look like states."""
    shutil.copy(tweets_csv, tmp_path / "north.csv")
    for folder in ("elsewhere", "start/other"):
        for victim in (f"{LINEAGE}/north/00000001", "north/00000001", "checkpoints/00000001", "x"):
            (tmp_path / folder / victim).mkdir(parents=True)
            (tmp_path / folder / victim / "dear.txt").write_text("dear")
    monkeypatch.chdir(tmp_path / "start")
    return tmp_path


def contents(place: Path, but: Path) -> Found:
    """All that is there, but for one folder."""
    paths = (path for path in place.rglob("*") if but != path and but not in path.parents)
    return {str(path): (path.lstat().st_mode, b"" if path.is_dir() else path.read_bytes()) for path in paths}


def leads(place: str) -> Iterator[str]:
    """Names that lead somewhere, if they are taken for paths."""
    for target in ("elsewhere", "start/other", f"elsewhere/{LINEAGE}", "elsewhere/x"):
        yield f"{place}/{target}"
        yield f"../{target}"
        yield f"../../{target}"


@pytest.mark.parametrize("pinned", [True, False], ids=["state-dir of the node config", "default state-dir"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_nothing_outside_the_state_dir_changes(
    run_config: Config, place: Path, pinned: bool, data: st.DataObject
) -> None:
    texts = st.one_of(st.sampled_from([*leads(str(place)), "", ".", "..", "/", "north", "\0"]), st.text(max_size=20))
    own = place / ("owner/state" if pinned else "start/state")
    node = silo("north", place / "north.csv", own)
    if not pinned:
        del node["state-dir"]
    raw = run_config(labels="negative,neutral,positive", method="fedavg-student", local_steps=1)
    raw |= {key: data.draw(texts, label=key) for key in ("run.state-dir", "run.runs-dir", "run.resume")}
    raw["run.name"] = data.draw(st.one_of(st.just("run"), texts), label="run.name")
    lineage = data.draw(st.one_of(st.just(LINEAGE), st.text("0123456789abcdef", min_size=16, max_size=16), texts))
    more: dict[str, Any] = {"lineage": lineage, "run": data.draw(st.one_of(st.just("run"), texts), label="run")}
    refresh = Refresh.of("nothing", 0)
    bodies = (
        JoinRequest(lineage=LINEAGE).model_copy(update={"lineage": lineage}),
        TrainRequest(lineage=LINEAGE, round=1, evaluate=False, refresh=refresh).model_copy(update=more),
        EvaluateRequest(lineage=LINEAGE, round=0, refresh=refresh).model_copy(update=more),
    )
    body = data.draw(st.sampled_from(bodies), label="message")
    before = contents(place, own)
    reply = ask(raw, node, body)
    assert contents(place, own).keys() - before.keys() <= {str(place / "owner")}, "above the state-dir, to make it"
    assert {path: found for path, found in contents(place, own).items() if path in before} == before
    assert reply.has_error() or is_lineage(lineage)


def test_a_run_config_moves_no_state(run_config: Config, place: Path) -> None:
    """The state lies where the owner says, or below the folder in which the node was started."""
    raw = run_config(labels="negative,neutral,positive", state_dir=str(place / "elsewhere"))
    for own in ({"state-dir": str(place / "owner")}, {}):
        ask(
            raw,
            {"name": "north", "data-path": str(place / "north.csv"), "policy": "off", **own},
            JoinRequest(lineage=LINEAGE),
        )
    assert not (place / "elsewhere" / "examples").exists()
    assert (place / "owner" / "examples").is_dir() and (place / "start" / "state" / "examples").is_dir()


def test_only_what_holds_our_manifest_is_pruned(tmp_path: Path, run_config: Config) -> None:
    store = NodeStore(tmp_path, LINEAGE, "north")
    kept = [store.folder / "00000007", store.folder / ".new-1"]
    for folder in kept:
        folder.mkdir(parents=True)
        (folder / "dear.txt").write_text("dear")
    for round in range(1, 4):
        store.save(NodeState(round, round, {}, {}))
    assert all((folder / "dear.txt").exists() for folder in kept)
    assert len(list(store.folder.glob("[0-9]*/state.json"))) == 1


def test_only_checkpoints_are_pruned_at_the_server(tmp_path: Path, run_config: Config) -> None:
    few = {"local_steps": 1, "min_train_nodes": 1, "keep_checkpoints": 1, "energy_end": 0.95}
    folder = run_server(LoopbackGrid(run_config(num_rounds=1, **few), nodes(1)))
    other = folder / "checkpoints" / "00000000"
    other.mkdir()
    (other / "dear.txt").write_text("dear")
    run_server(LoopbackGrid(run_config(num_rounds=2, resume=str(folder), **few), nodes(1)))
    assert (other / "dear.txt").exists()
    assert len(list((folder / "checkpoints").glob("*/state.json"))) == 1


def test_the_owner_of_a_server_says_where_runs_lie(
    run_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = run_server(LoopbackGrid(run_config(num_rounds=1, local_steps=1, min_train_nodes=1), nodes(1)))
    before = contents(tmp_path, tmp_path / "state")
    monkeypatch.setenv(RUNS_DIR, str(tmp_path / "owned"))
    for resume in (elsewhere, tmp_path / "owned" / ".." / "runs" / "run"):
        with pytest.raises(ConfigError, match="but the runs of this server lie in"):
            run_server(LoopbackGrid(run_config(num_rounds=2, resume=str(resume)), nodes(1)))
    assert contents(tmp_path, tmp_path / "state") == before
    raw = run_config(num_rounds=1, local_steps=1, min_train_nodes=1, run_name="other")
    run_server(LoopbackGrid(raw | {"run.runs-dir": str(tmp_path / "run-configs")}, nodes(1)))
    assert json.loads((tmp_path / "owned" / "other" / "history.json").read_text())["finished"]
    assert not (tmp_path / "run-configs").exists()
