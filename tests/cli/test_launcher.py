"""Real federations of a trivial app: the verdict, the reason in words, and nothing left behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from support.apps import project

from fedkd_flwr.cli import launcher
from fedkd_flwr.cli.launcher import Job, Verdict, launch
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import RunError
from fedkd_flwr.runtime.cpus import available_cpus

pytestmark = pytest.mark.e2e

REPOSITORY = Path(__file__).parent.parent.parent

APP = """
import os, time
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from fedkd_flwr.runtime.flower_log import log_in_single_lines
from fedkd_flwr.errors import RunError

client = ClientApp()
server = ServerApp()

@client.query()
def answer(message, context):
    import ray
    cpus = int(ray.cluster_resources()["CPU"])
    return Message(RecordDict({"c": ConfigRecord({"cwd": os.listdir(), "cpus": cpus})}), reply_to=message)

@server.main()
def main(grid, context):
    mode = context.run_config.get("mode", "hang")
    if mode == "fail":
        raise ValueError("the culprit is X")
    if mode == "refuse":
        log_in_single_lines()
        raise RunError("the culprit is Y")
    if mode == "hang":
        print("about to hang", flush=True)
        time.sleep(1000)
    while len(nodes := list(grid.get_node_ids())) < 3:
        time.sleep(0.1)
    asked = [Message(RecordDict(), dst_node_id=node, message_type="query") for node in nodes]
    answers = [reply.content["c"] for reply in grid.send_and_receive(asked, timeout=60)]
    print("cpus", {answer["cpus"] for answer in answers}, flush=True)
    print("answers", [answer["cwd"] for answer in answers], "quote", context.run_config["quote"], flush=True)
"""


def write_app(folder: Path, name: str = "trivial", config: str = 'mode = "ok"\nquote = ""') -> Path:
    (folder / "pyproject.toml").write_text(project(name, "trivial:server", "trivial:client", config))
    (folder / "trivial.py").write_text(APP)
    return folder


def job(folder: Path, mode: str, **changes: float) -> Job:
    return Job(write_app(folder), {"mode": mode, "quote": 'a "b" \\ ä'}, nodes=3, **changes)  # type: ignore[arg-type]


@pytest.fixture
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """A check that no process started by the test lives and no temporary folder of it is there."""
    monkeypatch.setenv("FEDKD_TEST", name := uuid.uuid4().hex)
    homes: list[str] = []
    make = launcher.tempfile.mkdtemp
    monkeypatch.setattr(launcher.tempfile, "mkdtemp", lambda **kwargs: homes.append(make(**kwargs)) or homes[-1])

    def living() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("FEDKD_TEST") == name and process.pid != os.getpid():
                    found.append(process)
            except psutil.Error:
                continue
        return found + psutil.Process().children(recursive=True)

    def check() -> None:
        assert living() == []
        assert not any(Path(home).exists() for home in homes)

    yield check
    for process in living():
        process.kill()


def lines_of(job: Job) -> tuple[Verdict, list[str]]:
    lines: list[str] = []
    return launch(job, tell=lambda event: lines.append(event.model_dump_json()), keep=lines.append), lines


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """An affinity mask of one CPU, where this system has such masks."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def test_completed_run(tmp_path: Path, nothing_left: Callable[[], None], one_cpu: None) -> None:
    """The app gets what was asked for, and Ray no more CPUs than this process may use."""
    verdict, lines = lines_of(job(tmp_path, "ok"))
    assert verdict == Verdict(completed=True)
    assert f"cpus {{{available_cpus()}}}" in lines
    assert 'answers [[], [], []] quote a "b" \\ ä' in lines
    assert not any("num-supernodes" in line or "SuperLink:" in line for line in lines)
    nothing_left()


def test_failed_run_says_why(tmp_path: Path, nothing_left: Callable[[], None]) -> None:
    verdict, _ = lines_of(job(tmp_path, "fail"))
    assert verdict == Verdict(False, "the run failed: ValueError: the culprit is X")
    nothing_left()


def test_an_error_of_ours_is_said_once_and_without_a_traceback(
    tmp_path: Path, nothing_left: Callable[[], None]
) -> None:
    verdict, lines = lines_of(job(tmp_path, "refuse"))
    assert verdict == Verdict(False, "the run failed: the culprit is Y")
    assert not any(word in line for line in lines for word in ("Traceback", "culprit", "Exit Code"))
    nothing_left()


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ({"timeout": 10.0}, r"the run was not over after 10 s \(--timeout\); (its log|the last line of its log: ).*"),
        ({"silence": 30.0}, "the run hangs: its log is silent for 30 s; the last line of its log: about to hang"),
    ],
    ids=["timeout", "silence"],
)
def test_hanging_run_is_stopped(
    tmp_path: Path,
    nothing_left: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    limit: dict[str, float],
    reason: str,
) -> None:
    """However far it has come when its time is over; a busy machine needs longer than that to begin it."""
    monkeypatch.setattr(launcher, "_POLL_SECONDS", 2.0)
    verdict, _ = lines_of(job(tmp_path, "hang", **limit))
    assert not verdict.completed
    assert re.fullmatch(reason, verdict.reason)
    nothing_left()


def test_superlink_that_cannot_start(
    tmp_path: Path, nothing_left: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(launcher, "_free_port", lambda: taken.getsockname()[1])
        with pytest.raises(RunError, match=r"the SuperLink stopped with exit code 1: .*address already in use"):
            lines_of(job(tmp_path, "ok"))
    nothing_left()


def test_refused_app(tmp_path: Path, nothing_left: Callable[[], None]) -> None:
    app = write_app(tmp_path, name="bad_name")
    with pytest.raises(
        RunError, match=r'Flower refused the app: The Flower App \[project\]\.name "bad_name" is invalid'
    ):
        lines_of(Job(app, {"mode": "ok"}, nodes=1))
    nothing_left()


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_signal_ends_everything(
    tmp_path: Path, nothing_left: Callable[[], None], sent: signal.Signals, code: int
) -> None:
    app = write_app(tmp_path, config=launcher._toml(RunConfig.defaults()))
    program = "from fedkd_flwr.cli import main; main.preflight = lambda *_: None; main.app()"
    fedkd = subprocess.Popen(
        [sys.executable, "-c", program, "run", str(app)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert fedkd.stdout is not None
    assert any("is submitted" in line for line in fedkd.stdout)
    fedkd.send_signal(sent)
    _, err = fedkd.communicate(timeout=60)
    assert err == ("" if code < 0 else f"fedkd: stopped by {sent.name}; all its processes have ended\n")
    assert fedkd.returncode == code
    nothing_left()
