"""The app on a real SuperLink: one federation of SuperNodes of four kinds, and what each of them is promised."""

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from support.apps import project
from support.federation import assert_same, silo
from support.loopback import LoopbackGrid, run_server

from e2e.conftest import Deployment
from e2e.machine import ROOT, as_toml, until
from fedkd_flwr.cli.processes import end_all
from fedkd_flwr.privacy.approved import app_hash, approve, install

pytestmark = pytest.mark.e2e

SECRET = "Zq7x"
"""Part of every cell, of the names of unnamed columns, and of the folder of the silos."""

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


def table(header: str = f"text,label,{SECRET}-hiv\n") -> str:
    return header + "".join(f"{SECRET} text {i},{('no', 'yes')[i % 2]},{SECRET}{i}\n" for i in range(80))


SILOS: dict[str, tuple[str, dict[str, Any]]] = {
    "open": (table(), {}),
    "pinned": (table(), {}),
    "headless": (table(header=""), {}),
    "mistaken": (table(), {"label-column": "text"}),
}
"""The file of each SuperNode, and what its node config says beside where it lies. The first two are what a run needs;
`pinned` runs only what its owner approves and has a teacher of its own, `open` runs whatever it is sent."""


@dataclass(frozen=True)
class Happened:
    """What is left of a run of somebody else's app, then of a run of ours."""

    deployment: Deployment
    ward: Path
    marks: dict[str, set[str]]
    said: list[str]
    foreign: str
    settings: dict[str, Any]
    run: dict[str, Any]
    log: str

    @property
    def folder(self) -> Path:
        return Path(self.settings["run.runs-dir"], "run")

    @property
    def history(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "history.json").read_text()))

    def node(self, name: str, state: Path) -> dict[str, Any]:
        """The node config of a silo that keeps its state there."""
        return silo(name, self.ward / f"{name}.csv", state, **SILOS[name][1])


@pytest.fixture(scope="module")
def happened(
    tmp_path_factory: pytest.TempPathFactory, tiny_run: dict[str, Any], tiny_bert_with_dropout: Path
) -> Iterator[Happened]:
    home, folder = tmp_path_factory.mktemp("flower"), tmp_path_factory.mktemp("app")
    ward = tmp_path_factory.mktemp(f"{SECRET}-ward")
    SILOS["pinned"][1]["teacher"] = str(tiny_bert_with_dropout)
    try:
        yield happen(Deployment(home), folder, ward, tiny_run)
    finally:
        end_all(str(home))


def happen(deployment: Deployment, folder: Path, ward: Path, tiny_run: dict[str, Any]) -> Happened:
    """The nodes that a run needs are sent somebody else's app; then one of them is told to run ours, and all are."""
    install(folder / "bin")
    marks = {name: folder / f"marks-{name}" for name in ("server", *SILOS)}
    for place in marks.values():
        place.mkdir()
    path = deployment.env["PATH"]

    def start(name: str) -> None:
        (ward / f"{name}.csv").write_text(SILOS[name][0])
        front = f"{folder / 'bin'}:" if name == "pinned" else ""
        deployment.env |= {"PATH": front + path, "MARKS": str(marks[name])}
        own = silo(name, ward / f"{name}.csv", ward / "state", threads=1, **SILOS[name][1])
        deployment.supernode(name, " ".join(f"{key}={json.dumps(value)}" for key, value in own.items()))
        deployment.env |= {"PATH": path, "MARKS": str(marks["server"])}

    deployment.env["MARKS"] = str(marks["server"])
    deployment.superlink()
    start("open")
    start("pinned")
    foreign = folder / "foreign"
    foreign.mkdir()
    (foreign / "pyproject.toml").write_text(project("foreign", "client_app:server", "client_app:app"))
    (foreign / "client_app.py").write_text(FOREIGN)
    first = str(deployment.flwr("run", str(foreign), "dep")["run-id"])
    assert deployment.wait("dep", first, seconds=120)["status"] == "finished:completed", deployment.logs()

    approve(folder / "bin", app_hash(ROOT))
    start("headless")
    start("mistaken")
    until(lambda: deployment.log("superlink").count("Activated node_id") == len(SILOS), 120, deployment.logs)
    settings = tiny_run | {
        "run.runs-dir": str(folder / "runs"), "data.labels": "no,yes", "federation.evaluate-every": 2,
        "federation.node-wait-seconds": 60,
    }  # fmt: skip
    (folder / "run.toml").write_text(as_toml(settings))
    second = deployment.run(folder / "run.toml")
    run = deployment.wait("dep", second, seconds=300)
    assert run["status"] == "finished:completed", deployment.logs()
    return Happened(
        deployment,
        ward,
        {name: {path.name for path in place.iterdir()} for name, place in marks.items()},
        [line for line in deployment.said("dep", first).splitlines() if "ANSWER" in line],
        app_hash(foreign),
        settings,
        run,
        deployment.log("superlink") + deployment.said("dep", second),
    )


def test_an_unapproved_app_runs_not_one_line_and_an_approved_one_trains(happened: Happened) -> None:
    """The foreign app calls its module as ours is called, asks for what it should not, and succeeds on a node that is
    not pinned. The pinned node goes on: the same SuperNode then takes part in a run of this app."""
    assert happened.marks["open"] == {"imported", "handled"} and happened.marks["pinned"] == set()
    refusal = f"node pinned runs only approved apps: its owner may `fedkd silo approve {happened.foreign}`"
    assert len(happened.said) == 2
    assert sum(refusal in line for line in happened.said) == 1
    assert sum(str(happened.ward / "open.csv") in line for line in happened.said) == 1
    assert sum(refusal in line for line in happened.deployment.log("pinned").splitlines()) == 1
    assert "pinned" in happened.history["rounds"][-1]["nodes"]


def test_supernodes_train_as_one_process_does(happened: Happened, tiny_bert_with_dropout: Path, tmp_path: Path) -> None:
    """Top-level app modules load on a SuperNode; the student is bit for bit that of loopback with the same secret."""
    assert [entry["trained"] for entry in happened.history["rounds"]] == [2, 2]
    for name, dropout in (("open", 0.0), ("pinned", 0.1)):
        (place,) = (happened.ward / "state").glob(f"*/{name}/teacher")
        assert (place / "model.safetensors").stat().st_size > 0
        assert json.loads((place / "config.json").read_text())["hidden_dropout_prob"] == dropout

    with (happened.folder / "traffic.csv").open() as file:
        ledger = {"up": 0, "down": 0}
        for row in csv.DictReader(file):
            ledger[row["direction"]] += int(row["bytes"])
    traffic = happened.run["network-traffic"]
    assert int(traffic["inbound-bytes"]) + int(traffic["outbound-bytes"]) > ledger["up"] + ledger["down"]

    shutil.copy(happened.ward / "state" / "secret", tmp_path)
    nodes = [happened.node(name, tmp_path) for name in ("open", "pinned")]
    loopback = run_server(LoopbackGrid(happened.settings | {"run.runs-dir": str(tmp_path / "runs")}, nodes))
    assert_same(*(load_file(path / "student/model.safetensors") for path in (happened.folder, loopback)))


def test_no_cell_no_unnamed_column_and_no_path_reaches_the_server(happened: Happened) -> None:
    """Neither its log, nor history.json, nor the student; the owner finds all of it in the log of the own node."""
    assert happened.history["rounds"][-1]["nodes"].keys() == {"open", "pinned"}
    for name, words in (
        ("headless", "run-config key 'data.text-column' names no column of its data"),
        ("mistaken", "a row has a label that is none of those that are named"),
    ):
        assert f"node {name}: {words}" in happened.log
        assert str(happened.ward) in happened.deployment.log(name), "in the node's own log"
    files = [path for path in happened.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    for place, content in {
        "the log": happened.log.encode(),
        **{str(path): path.read_bytes() for path in files},
    }.items():
        assert SECRET.encode() not in content, place
