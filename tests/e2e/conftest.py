"""Real Flower processes around the tiny model: a simulation by `fedkd run`, a SuperLink with its SuperNodes."""

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from e2e.machine import ROOT, Machine, free_port, until
from fedkd_flwr.processes import end_all


def as_toml(values: dict[str, Any]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


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
