"""Real Flower processes around the tiny model: a simulation by `fedkd run`, a SuperLink with its SuperNodes."""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.loopback import Fault, LoopbackGrid, run_server

from e2e.machine import ROOT, Machine, as_toml, free_port, until
from e2e.secure import Federation
from fedkd_flwr.cli.processes import end_all


@pytest.fixture
def config_file(run_config: Callable[..., dict[str, Any]], tmp_path: Path) -> Callable[..., Path]:
    """The tiny run's config as a file for --run-config."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "run-config.toml"
        path.write_text(as_toml(run_config(node_wait_seconds=60, **changes)))
        return path

    return write


class Deployment(Machine):
    """A SuperLink, and SuperNodes on the same machine."""

    def __init__(self, home: Path, host: str = "127.0.0.1", prefix: Sequence[str] = ()) -> None:
        super().__init__(home, str(home), prefix)
        self.address = f"{host}:{free_port()}"
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "dep"\n[superlink.dep]\naddress = "{self.address}"\ninsecure = true\n'
        )

    def superlink(self) -> subprocess.Popen[bytes]:
        host, _, port = self.address.partition(":")
        process = self.start(
            "superlink", "flower-superlink", "--insecure", "--host", host, "--port", port,
            "--disable-runtime-dependency-installation", "--database", str(self.home / "state.db"),
        )  # fmt: skip
        until(lambda: "Uvicorn running" in self.log("superlink"), 60, self.logs)
        return process

    def supernode(self, name: str, node_config: str) -> subprocess.Popen[bytes]:
        return self.start(
            name, "flower-supernode", "--insecure", "--superlink", self.address,
            "--port", str(free_port()), "--node-config", node_config,
        )  # fmt: skip

    def run(self, config: Path) -> str:
        """Submit the app; return the run's id."""
        answer = self.flwr("run", str(ROOT), "dep", "--run-config", str(config))
        assert answer.get("success"), answer
        return str(answer["run-id"])


@pytest.fixture
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    home = tmp_path_factory.mktemp("flower")
    try:
        yield Deployment(home)
    finally:
        end_all(str(home))


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory, tweets_csv: Path) -> Iterator[Federation]:
    """The federation of docs/deploy.md, up."""
    folder = tmp_path_factory.mktemp("federation")
    federation = Federation(folder, tweets_csv)
    try:
        federation.start()
        yield federation
    finally:
        end_all(federation.launch)


@pytest.fixture
def config(federation: Federation, run_config: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """A run that the default policy allows of silos with files of their own; nothing that a node config says."""

    def build(**changes: Any) -> dict[str, Any]:
        settings = {"labels": "negative,neutral,positive", "local_steps": 3, "node_wait_seconds": 120}
        settings |= {"batch_size": 32, "codec": "budget", "budget": "16x", "test_fraction": 0.2}
        built = run_config(runs_dir=str(federation.server.home / "runs"), **(settings | changes))
        return {key: value for key, value in built.items() if key not in ("data.dataset", "run.state-dir")}

    return build


@pytest.fixture
def in_one_process(
    federation: Federation, defaults: dict[str, Any], tmp_path: Path
) -> Callable[..., Mapping[str, torch.Tensor]]:
    """The student of the same run with the same secrets, in one process and with the fault that is asked for alone."""

    def student(settings: dict[str, Any], fault: Fault | None = None) -> Mapping[str, torch.Tensor]:
        nodes = []
        for name, silo in federation.silos.items():
            (tmp_path / name).mkdir()
            shutil.copy(silo.home / "state" / "secret", tmp_path / name)
            place = {"data-path": silo.home / f"{name}.csv", "policy": silo.home / "etc" / "policy.toml"}
            nodes.append(
                {"name": name} | {key: str(path) for key, path in (place | {"state-dir": tmp_path / name}).items()}
            )
        grid = LoopbackGrid(defaults | settings | {"run.runs-dir": str(tmp_path)}, nodes)
        grid.fault = fault
        return load_file(run_server(grid) / "student/model.safetensors")

    return student
