"""docs/deploy.md, command by command: TLS, node keys, a ServerApp of its own, and daemons that are killed."""

import csv
import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from loopback import LoopbackGrid, run_server
from safetensors.torch import load_file

from e2e.conftest import as_toml
from e2e.machine import ROOT, Machine, answers, free_port, until
from fedkd_flwr.processes import end_all

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]

SILOS = ("north", "south")
STEPS = 3


def commands(heading: str) -> list[str]:
    """The shell blocks under a heading of the page."""
    (section,) = re.findall(rf"^## {heading}$(.*?)(?=^## |\Z)", (ROOT / "docs/deploy.md").read_text(), re.M | re.S)
    return re.findall(r"^```sh\n(.*?)^```$", section, re.M | re.S)


class Host(Machine):
    """A machine of the page: its names and paths stand for this machine's."""

    def __init__(self, home: Path, launch: str, port: int, silo: str = "north") -> None:
        super().__init__(home, launch)
        self.silo = silo
        self._loops: dict[str, subprocess.Popen[bytes]] = {}
        self._words = {
            "/etc/fedkd": str(home / "etc"),
            "/var/lib/fedkd": str(home),
            "fed.example.org": "localhost",
            "8000": str(port),
            "9094": str(free_port()),
            "north": silo,
        }

    def here(self, text: str) -> str:
        return re.sub("|".join(map(re.escape, self._words)), lambda match: self._words[match[0]], text)

    def serve(self, name: str, command: str) -> None:
        """A daemon under the page's restart policy."""
        (self.home / f"{name}.sh").write_text(self.here(command))
        policy = commands("When something dies")[0].replace("DAEMON", name)
        self._loops[name] = self.start(name, "bash", "-c", policy)

    def kill(self, name: str) -> None:
        """SIGKILL the daemon; the policy is left."""
        (daemon,) = psutil.Process(self._loops[name].pid).children()
        assert "flower" in " ".join(daemon.cmdline()), daemon
        daemon.send_signal(signal.SIGKILL)


class Federation:
    """The server with the operator's settings, and two silos with slices of the tweets."""

    def __init__(self, folder: Path, tweets: Path) -> None:
        self.launch = str(folder)
        self.port = free_port()
        self.server = Host(folder / "server", self.launch, self.port)
        self.silos = {name: Host(folder / name, self.launch, self.port, name) for name in SILOS}
        with tweets.open(newline="") as file:
            head, *rows = csv.reader(file)
        for index, silo in enumerate(self.silos.values()):
            with (silo.home / f"{silo.silo}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([head, *rows[index :: len(SILOS)]])

    def start(self) -> None:
        server, etc = self.server, self.server.home / "etc"
        server_keys, silo_keys = commands("Certificates and keys")
        server.sh(server.here(server_keys))
        superlink, superexec = commands("The server")
        server.serve("superlink", superlink)
        until(lambda: answers(self.port), 60, server.logs)
        server.serve("superexec", superexec)

        page = (ROOT / "docs/deploy.md").read_text()
        (settings,) = re.findall(r"^```toml\n(\[superlink\].*?)^```$", page, re.M | re.S)
        (server.home / "config.toml").write_text(server.here(settings))
        for silo in self.silos.values():
            silo.sh(silo.here(silo_keys))
            for name, source, target in (
                ("ca.crt", etc, silo.home / "etc"),
                (f"{silo.silo}.pub", silo.home / "etc", etc),
            ):
                (target / name).write_bytes((source / name).read_bytes())
            server.sh(silo.here(commands("The operator")[0]).replace(str(silo.home), str(server.home)))
            silo.serve("supernode", commands("A silo")[0])

    def run(self, config: dict[str, Any]) -> str:
        """`flwr run` of the page; returns the run's id."""
        before = self._run_ids()
        self._operate(0, config)
        return until(lambda: self._run_ids() - before, 60, self.server.logs).pop()

    def federate(self, config: dict[str, Any]) -> subprocess.Popen[bytes]:
        """The page's command that exits with the verdict."""
        return self._operate(1, config)

    def _operate(self, command: int, config: dict[str, Any]) -> subprocess.Popen[bytes]:
        path = self.server.home / "run.toml"
        path.write_text(as_toml(config))
        script = commands("A run")[command].replace("run.toml", str(path))
        return self.server.start("run", "bash", "-c", f"cd {ROOT} && {script}")

    def _run_ids(self) -> set[str]:
        return {str(run["run-id"]) for run in self.server.flwr("ls", "fed")["runs"]}

    def verdict(self, run_id: str) -> str:
        return str(self.server.wait("fed", run_id, 1200)["status"])

    def folder(self, settings: dict[str, Any]) -> Path:
        return Path(settings["runs-dir"]) / settings["run-name"]

    def logs(self) -> str:
        return "\n".join(machine.logs() for machine in (self.server, *self.silos.values()))


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory, tweets_csv: Path) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp("federation")
    federation = Federation(folder, tweets_csv)
    try:
        federation.start()
        yield federation
    finally:
        end_all(federation.launch)


@pytest.fixture
def config(federation: Federation, run_config: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """A run of silos with files of their own; nothing that a silo's node config says."""

    def build(**changes: Any) -> dict[str, Any]:
        settings = {"labels": "negative,neutral,positive", "local_steps": STEPS, "node_wait_seconds": 120}
        built = run_config(runs_dir=str(federation.server.home / "runs"), **(settings | changes))
        return {key: value for key, value in built.items() if key not in ("dataset", "state-dir")}

    return build


@pytest.fixture
def undisturbed(
    federation: Federation, defaults: dict[str, Any], tmp_path: Path
) -> Callable[[dict[str, Any]], dict[str, torch.Tensor]]:
    """The student of the same run in one process where nothing dies."""

    def student(settings: dict[str, Any]) -> dict[str, torch.Tensor]:
        nodes = [
            {"name": name, "data-path": str(silo.home / f"{name}.csv"), "state-dir": str(tmp_path / name)}
            for name, silo in federation.silos.items()
        ]
        folder = run_server(LoopbackGrid(defaults | settings | {"runs-dir": str(tmp_path)}, nodes))
        return load_file(folder / "student/model.safetensors")

    return student


def test_a_run_outlives_its_superlink(
    federation: Federation,
    config: Callable[..., dict[str, Any]],
    undisturbed: Callable[[dict[str, Any]], dict[str, torch.Tensor]],
) -> None:
    """SIGKILL in the middle of a round: the run goes on by itself and ends bit for bit as the undisturbed one."""
    settings = config(num_rounds=3, run_name="outlives")
    folder = federation.folder(settings)
    run_id = federation.run(settings)
    until((folder / "checkpoints" / "00000001").is_dir, 600, federation.logs)
    federation.server.kill("superlink")
    until(lambda: not answers(federation.port), 10)
    until(lambda: answers(federation.port), 60, federation.logs)
    assert federation.verdict(run_id) == "finished:completed", federation.logs()

    history = json.loads((folder / "history.json").read_text())
    assert [(entry["trained"], entry["failed"]) for entry in history["rounds"]] == [(2, {})] * 3
    assert_same(load_file(folder / "student/model.safetensors"), undisturbed(settings))
    said = federation.server.sh(commands("A run")[2].replace("RUN-ID", run_id))
    assert run_id in said and "fedkd: finished" in said


def test_a_run_is_stopped(federation: Federation, config: Callable[..., dict[str, Any]]) -> None:
    run_id = federation.run(config(num_rounds=100, run_name="stopped"))
    federation.server.sh(commands("A run")[3].replace("RUN-ID", run_id))
    assert federation.verdict(run_id) == "finished:stopped", federation.logs()


def test_a_killed_supernode_comes_back_with_its_teacher(
    federation: Federation,
    config: Callable[..., dict[str, Any]],
    undisturbed: Callable[[dict[str, Any]], dict[str, torch.Tensor]],
) -> None:
    """Killed in the second round; the restart policy outlasts the time in which its key is refused; resumed, the run
    ends as if undisturbed."""
    settings = config(num_rounds=3, run_name="returns")
    folder = federation.folder(settings)
    south = federation.silos["south"]
    before = south.log("supernode").count("Receiving: train message")
    first = federation.federate(settings)
    until(lambda: south.log("supernode").count("Receiving: train message") == before + 2, 600, federation.logs)
    south.kill("supernode")
    assert first.wait(1200) == 1, "the round was over before the node was killed"

    assert federation.federate(settings | {"resume": str(folder)}).wait(1200) == 0, federation.logs()
    assert_same(load_file(folder / "student/model.safetensors"), undisturbed(settings))
    lineage = json.loads((folder / "history.json").read_text())["lineage"]
    (moments,) = (south.home / "state" / lineage / "south").glob("0*/moments.safetensors")
    steps = {float(tensor) for name, tensor in load_file(moments).items() if name.endswith("/step")}
    assert steps == {3.0 * STEPS}


def test_a_key_that_is_not_registered_is_turned_away(federation: Federation, tmp_path: Path) -> None:
    stranger = Host(tmp_path / "stranger", federation.launch, federation.port, "stranger")
    stranger.sh(stranger.here(commands("Certificates and keys")[1]))
    (stranger.home / "etc" / "ca.crt").write_bytes((federation.server.home / "etc" / "ca.crt").read_bytes())
    (command,) = commands("A silo")
    supernode = stranger.start("supernode", "bash", "-c", stranger.here(command))
    assert supernode.wait(300) != 0
    assert "Failed to activate SuperNode" in stranger.log("supernode")
    assert len(federation.server.flwr("supernode", "list", "fed")["nodes"]) == len(SILOS)


def assert_same(real: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert real.keys() == expected.keys()
    assert all(torch.equal(real[name], expected[name]) for name in real)
