"""One simulated federation from start to end: own SuperLink, `flwr run`, log, verdict, nothing left behind.

Each step answers to a habit of Flower: `flwr run` exits 0 whatever comes of the run, installs the app's
dependencies afresh, and leaves behind a SuperLink whose start folder comes first on the nodes' `sys.path`.
"""

import json
import math
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

from fedkd_flwr.cli.child_environment import EVENTS_FILE, SCRIPTS, child_environment
from fedkd_flwr.cli.processes import guarded
from fedkd_flwr.cli.run_log import RunLog, Say, plain
from fedkd_flwr.config.documentation import toml_value
from fedkd_flwr.config.groups import Value
from fedkd_flwr.errors import RunError
from fedkd_flwr.live.channel import Tell, followed
from fedkd_flwr.live.events import Starting
from fedkd_flwr.runtime.cpus import available_cpus

_CONNECTION = "fedkd"
_SUPERLINK_START_SECONDS = 60.0
_RUN_START_SECONDS = 180.0
_COMMAND_SECONDS = 120.0
_POLL_SECONDS = 20.0
_REAP_SECONDS = 10.0
_LONGEST_TEMP_ROOT = 20
"""Ray's Unix sockets lie in the temporary folder, and a socket's path has room for 100 characters."""

_NOT_RUNNING = ("pending", "starting")


@dataclass(frozen=True)
class Job:
    """What is launched; `timeout` is how long it may take, `silence` how long its log may stay silent."""

    app: Path
    run_config: Mapping[str, Value]
    nodes: int
    cpus_per_node: int = 1
    gpus_per_node: float = 0.0
    timeout: float | None = None
    silence: float | None = None


@dataclass(frozen=True)
class Verdict:
    """How a run ended; `reason` is one line, empty where it completed."""

    completed: bool
    reason: str = ""


def launch(job: Job, tell: Tell, keep: Say) -> Verdict:
    """Run a Flower app in a simulated federation of its own and wait for the verdict.

    Args:
        job: what to run.
        tell: is given each event, first of the launch, then of the run.
        keep: is given each line of the run's log.

    Raises:
        RunError: the federation did not start or refused the app.
        Interrupted: a signal asked this process to end.

    However it ends, every process that it started is gone and its temporary folder is removed.
    """
    began = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="fedkd-", dir=_temp_root()))
    federation = _Federation(home)
    try:
        with guarded(home), followed(home / EVENTS_FILE, tell):
            tell(Starting(step="Flower's SuperLink starts"))
            federation.start()
            tell(Starting(step=f"the SuperLink is up at {federation.address}: the app is handed over"))
            run_id = federation.submit(job)
            tell(Starting(step=f"run {run_id} is submitted: {job.nodes} nodes with {_resources(job)} each"))
            return federation.follow(run_id, job, began, keep)
    finally:
        federation.reap()


class _Federation:
    """A SuperLink of our own, with its clients' settings, in one temporary folder."""

    def __init__(self, home: Path) -> None:
        self.address = f"127.0.0.1:{_free_port()}"
        self._home = home
        self._log = home / "superlink.log"
        self._env = child_environment(home)
        self._processes: list[subprocess.Popen[Any]] = []

    def start(self) -> None:
        """Start the SuperLink in a folder without code and wait until it answers."""
        (self._home / "cwd").mkdir()
        (self._home / "config.toml").write_text(
            f'[superlink]\ndefault = "{_CONNECTION}"\n'
            f'[superlink.{_CONNECTION}]\naddress = "{self.address}"\ninsecure = true\n'
        )
        host, _, port = self.address.partition(":")
        with self._log.open("wb") as log:
            self._superlink = self._popen(
                "flower-superlink", "--insecure", "--simulation", "--host", host, "--port", port,
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        deadline = time.monotonic() + _SUPERLINK_START_SECONDS
        while not is_healthy(self.address):
            if self._superlink.poll() is not None:
                raise RunError(self._superlink_stopped())
            if time.monotonic() > deadline:
                raise RunError(f"the SuperLink did not answer within {_SUPERLINK_START_SECONDS:.0f} s")
            time.sleep(0.1)

    def submit(self, job: Job) -> str:
        """Hand the app over; return the id of its run."""
        run_config = self._home / "run-config.toml"
        run_config.write_text(_toml(job.run_config), encoding="utf-8")
        federation_config = {
            "num-supernodes": job.nodes,
            "client-resources-num-cpus": job.cpus_per_node,
            "client-resources-num-gpus": float(job.gpus_per_node),
            "init-args-num-cpus": available_cpus(),
        }
        answer = self._flwr(
            "run", str(job.app), _CONNECTION,
            "--run-config", str(run_config),
            "--federation-config", " ".join(f"{key}={value}" for key, value in federation_config.items()),
        )  # fmt: skip
        if not answer.get("success"):
            lines = str(answer.get("error-message", answer)).splitlines()
            why = " ".join(line for line in lines if not line.startswith("Using SuperLink:"))
            raise RunError(f"Flower refused the app: {_one_line(why)}")
        return str(answer["run-id"])

    def follow(self, run_id: str, job: Job, began: float, keep: Say) -> Verdict:
        """Keep the run's log until the run is over or hangs; return the verdict."""
        log = RunLog(
            self._popen(
                "flwr", "log", run_id, _CONNECTION, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            ),
            keep,
        )
        deadline = began + (job.timeout or math.inf)
        while True:
            log.wait(min(_POLL_SECONDS, max(0.0, deadline - time.monotonic())))
            status, details = self._status(run_id)
            if status == "finished:completed":
                return Verdict(completed=True)
            if status.startswith("finished:"):
                return Verdict(False, f"the run {status.removeprefix('finished:')}: {log.error or _reason(details)}")
            if self._superlink.poll() is not None:
                return Verdict(False, self._superlink_stopped())
            if time.monotonic() >= deadline:
                return Verdict(False, f"the run was not over after {job.timeout:g} s (--timeout); {log.last_words}")
            if status in _NOT_RUNNING and log.silence > _RUN_START_SECONDS:
                return Verdict(False, f"the run is still {status} after {_RUN_START_SECONDS:.0f} s")
            if job.silence is not None and log.silence > job.silence:
                return Verdict(False, f"the run hangs: its log is silent for {job.silence:g} s; {log.last_words}")

    def reap(self) -> None:
        """Take leave of the processes, which have all been ended.

        One whose main thread is gone already looks ended while its other threads still go: it is waited for.
        """
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_REAP_SECONDS)

    def _status(self, run_id: str) -> tuple[str, str]:
        runs = self._flwr("ls", _CONNECTION, "--run-id", run_id).get("runs")
        return (runs[0]["status"], _one_line(runs[0]["status-details"])) if runs else ("unknown", "")

    def _flwr(self, *arguments: str) -> dict[str, Any]:
        """The JSON answer of a `flwr` command, which exits 0 even where it says `"success": false`."""
        process = self._popen(
            "flwr", *arguments, "--format", "json", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            out, err = process.communicate(timeout=_COMMAND_SECONDS)
            answer = json.loads(out)
        except subprocess.TimeoutExpired:
            process.kill()
            answer = {"error-message": f"`flwr {arguments[0]}` did not answer within {_COMMAND_SECONDS:.0f} s"}
        except json.JSONDecodeError:
            answer = {"error-message": err or out}
        return cast(dict[str, Any], answer)

    def _popen(self, command: str, *arguments: str, **options: Any) -> "subprocess.Popen[Any]":
        """Start a command in the folder without code, out of reach of the terminal's Ctrl-C."""
        process = subprocess.Popen(
            [str(SCRIPTS / command), *arguments],
            cwd=self._home / "cwd", env=self._env, stdin=subprocess.DEVNULL, start_new_session=True,
            **options,
        )  # fmt: skip
        self._processes.append(process)
        return process

    def _superlink_stopped(self) -> str:
        code = self._superlink.poll()
        if code is not None and code < 0:
            return f"the SuperLink was ended from outside ({signal.Signals(-code).name})"
        lines = [plain(line) for line in self._log.read_text(errors="replace").splitlines() if plain(line)]
        errors = [line for line in lines if "ERROR" in line or "Error" in line]
        return f"the SuperLink stopped with exit code {code}: {(errors or lines or ['its log is empty'])[-1]}"


def is_healthy(address: str) -> bool:
    """Whether a SuperLink on this machine answers; whatever proxy the environment names is not asked."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{address}/health", timeout=1) as response:
            return bool(response.status == HTTPStatus.OK)
    except OSError:
        return False


def _temp_root() -> str:
    root = tempfile.gettempdir()
    return root if len(root) <= _LONGEST_TEMP_ROOT else "/tmp"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _resources(job: Job) -> str:
    cpus = f"{job.cpus_per_node} CPU" + "s" * (job.cpus_per_node > 1)
    return f"{cpus}, {job.gpus_per_node:g} GPU" if job.gpus_per_node else cpus


def _reason(details: str) -> str:
    """Why a run failed, without Flower's own words before it."""
    return re.sub(r"^(Simulation|ServerApp) failed with exception: ", "", details)


def _toml(values: Mapping[str, Value]) -> str:
    return "".join(f"{key} = {toml_value(value)}\n" for key, value in values.items())


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
