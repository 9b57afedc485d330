"""Real Flower processes around the tiny model: a simulation by `fedkd run`, a SuperLink with its SuperNodes."""

import json
import os
import socket
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedkd_flwr.processes import MARKER, end_all

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = Path(sysconfig.get_path("scripts"))


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


class Deployment:
    """A SuperLink and SuperNodes on loopback ports, with a FLWR_HOME of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.env = os.environ | {
            MARKER: str(home),
            "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
        }
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "dep"\n[superlink.dep]\naddress = "127.0.0.1:{self.port}"\ninsecure = true\n'
        )

    def superlink(self) -> subprocess.Popen[bytes]:
        process = self.start(
            "superlink", "flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(self.port),
            "--disable-runtime-dependency-installation", "--database", str(self.home / "state.db"),
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1)
                return process
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise AssertionError(self.log("superlink"))

    def supernode(self, name: str, node_config: str) -> subprocess.Popen[bytes]:
        return self.start(
            name, "flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{self.port}",
            "--port", str(free_port()), "--node-config", node_config,
        )  # fmt: skip

    def run(self, config: Path) -> str:
        """Submit the app; return the run's id."""
        answer = self.flwr("run", str(ROOT), "dep", "--run-config", str(config))
        assert answer.get("success"), answer
        return str(answer["run-id"])

    def wait(self, run_id: str, seconds: float) -> dict[str, Any]:
        """What `flwr ls` says of the run once it is over."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            (run,) = self.flwr("ls", "dep", "--run-id", run_id)["runs"]
            if str(run["status"]).startswith("finished"):
                return dict(run)
            time.sleep(2)
        raise AssertionError("\n".join(self.log(path.stem) for path in self.home.glob("*.log")))

    def flwr(self, *arguments: str) -> dict[str, Any]:
        out = subprocess.run(
            [str(SCRIPTS / "flwr"), *arguments, "--format", "json"],
            env=self.env, cwd=self.home, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        return dict(json.loads(out.stdout))

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        with (self.home / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [str(SCRIPTS / command[0]), *command[1:]],
                env=self.env, cwd=self.home, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def log(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text(errors="replace")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    home = tmp_path_factory.mktemp("flower")
    try:
        yield Deployment(home)
    finally:
        end_all(str(home))
