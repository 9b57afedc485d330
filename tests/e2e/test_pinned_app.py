"""A SuperNode that runs only what its owner approves, beside one that runs whatever it is sent."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import Deployment
from e2e.machine import ROOT
from fedkd_flwr.privacy.approved import app_hash, approve, install

pytestmark = pytest.mark.e2e

PYPROJECT = """
[project]
name = "foreign"
version = "1.0.0"
description = "a test"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "tests"
[tool.flwr.app.components]
serverapp = "client_app:server"
clientapp = "client_app:app"
"""

FOREIGN = """
import os, time
from pathlib import Path
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
Path(os.environ["MARKS"], "imported").touch()
app = ClientApp()
server = ServerApp()

@app.query()
def steal(message, context):
    stolen = {"path": context.node_config["data-path"], "passwd": Path("/etc/passwd").read_text()[:4]}
    Path(os.environ["MARKS"], "handled").touch()
    return Message(RecordDict({"stolen": ConfigRecord(stolen)}), reply_to=message)

@server.main()
def main(grid, context):
    while len(nodes := list(grid.get_node_ids())) < 2:
        time.sleep(0.1)
    asked = [Message(RecordDict(), dst_node_id=node, message_type="query") for node in nodes]
    for reply in grid.send_and_receive(asked, timeout=60):
        print("ANSWER", reply.error.reason if reply.has_error() else dict(reply.content["stolen"]), flush=True)
"""


def test_an_unapproved_app_runs_not_one_line_and_an_approved_one_trains(
    deployment: Deployment,
    config_file: Callable[..., Path],
    run_config: Callable[..., dict[str, Any]],
    tweets_csv: Path,
    tmp_path: Path,
) -> None:
    """The foreign app calls its module as ours is called, asks for what it should not, and succeeds on a node that is
    not pinned. The pinned node goes on: the same SuperNode then takes part in a run of this app."""
    install(tmp_path / "bin")
    marks = {name: tmp_path / f"marks-{name}" for name in ("server", "open", "pinned")}
    for folder in marks.values():
        folder.mkdir()
    deployment.env["MARKS"] = str(marks["server"])
    deployment.superlink()
    path = deployment.env["PATH"]
    nodes = {}
    for name, front in (("open", ""), ("pinned", f"{tmp_path / 'bin'}:")):
        deployment.env |= {"PATH": front + path, "MARKS": str(marks[name])}
        nodes[name] = deployment.supernode(
            name, f'name="{name}" data-path="{tweets_csv}" state-dir="{tmp_path / name}" threads=1 policy="off"'
        )
    deployment.env["PATH"] = path

    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "pyproject.toml").write_text(PYPROJECT)
    (foreign / "client_app.py").write_text(FOREIGN)
    answer = deployment.flwr("run", str(foreign), "dep")
    run = deployment.wait("dep", str(answer["run-id"]), seconds=120)
    said = [line for line in deployment.sh(f"flwr log {answer['run-id']} dep --show").splitlines() if "ANSWER" in line]
    assert run["status"] == "finished:completed" and len(said) == 2, deployment.logs()
    assert {path.name for path in marks["open"].iterdir()} == {"imported", "handled"}
    assert list(marks["pinned"].iterdir()) == []
    refusal = f"node pinned runs only approved apps: its owner may `fedkd silo approve {app_hash(foreign)}`"
    assert sum(refusal in line for line in said) == 1 and sum(str(tweets_csv) in line for line in said) == 1
    assert sum(refusal in line for line in deployment.log("pinned").splitlines()) == 1
    nodes["open"].terminate()
    nodes["open"].wait(60)

    approve(tmp_path / "bin", app_hash(ROOT))
    settings = config_file(num_rounds=1, local_steps=1, labels="negative,neutral,positive", min_train_nodes=1)
    run = deployment.wait("dep", deployment.run(settings), seconds=240)
    assert run["status"] == "finished:completed", deployment.logs()
    (entry,) = json.loads((tmp_path / "runs/run/history.json").read_text())["rounds"]
    assert entry["trained"] == 1 and entry["nodes"].keys() == {"pinned"} and nodes["pinned"].poll() is None
