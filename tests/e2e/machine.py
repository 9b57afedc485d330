"""A machine of a federation: a folder, an environment, and the processes that run in them."""

import json
import os
import socket
import subprocess
import sysconfig
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from fedkd_flwr.cli.processes import MARKER

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = Path(sysconfig.get_path("scripts"))
T = TypeVar("T")


class Machine:
    """Processes with a FLWR_HOME of their own; all carry the name of the launch they belong to."""

    def __init__(self, home: Path, launch: str, prefix: Sequence[str] = ()) -> None:
        """Take the folder `home`.

        Args:
            home: FLWR_HOME, the logs, and where daemons start.
            launch: by which `fedkd_flwr.cli.processes.end_all` knows the processes.
            prefix: what every command runs under, as `ip netns exec NAME`.
        """
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.launch = launch
        self.prefix = tuple(prefix)
        self.env = os.environ | {
            MARKER: launch,
            "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
            "COLUMNS": "200",
        }

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """A daemon, its output in NAME.log."""
        with (self.home / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [*self.prefix, *command],
                env=self.env, cwd=self.home, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def sh(self, script: str, cwd: Path = ROOT, seconds: float = 120) -> str:
        """What a shell script prints; it must succeed."""
        done = subprocess.run(
            [*self.prefix, "bash", "-euo", "pipefail", "-c", script],
            env=self.env, cwd=cwd, capture_output=True, text=True, timeout=seconds,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def flwr(self, *arguments: str) -> dict[str, Any]:
        """What a `flwr` command answers."""
        out = self._run_flwr(*arguments, "--format", "json")
        assert out.stdout, out.stderr
        return dict(json.loads(out.stdout))

    def wait(self, superlink: str, run_id: str, seconds: float) -> dict[str, Any]:
        """What `flwr ls` says of a run once it is over, which is when its log ends."""

        def over() -> dict[str, Any] | None:
            runs = self.flwr("ls", superlink, "--run-id", run_id).get("runs", [])
            return next((dict(run) for run in runs if str(run["status"]).startswith("finished")), None)

        deadline = time.monotonic() + seconds
        with suppress(subprocess.TimeoutExpired):
            self._run_flwr("log", run_id, superlink, seconds=seconds)
        return until(over, max(0.0, deadline - time.monotonic()), self.logs)

    def said(self, superlink: str, run_id: str) -> str:
        """The log of a run, as its operator reads it."""
        return self._run_flwr("log", run_id, superlink, "--show").stdout

    def _run_flwr(self, *arguments: str, seconds: float = 120) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*self.prefix, "flwr", *arguments],
            env=self.env, cwd=self.home, capture_output=True, text=True, timeout=seconds,
        )  # fmt: skip

    def log(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text(errors="replace")

    def logs(self) -> str:
        return "\n".join(f"--- {path}\n{path.read_text(errors='replace')}" for path in self.home.glob("*.log"))


def as_toml(values: dict[str, Any]) -> str:
    """A flat TOML table."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def until(found: Callable[[], T | None], seconds: float, explain: Callable[[], str] = str) -> T:
    """What `found` returns once it is true; after so many seconds the test has failed."""
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline, explain()
        time.sleep(0.5)
    return result
