"""Flower's simulation engine on Ray: `fedkd run` killed, stopped and resumed; `simulate` with it."""

import csv
import fcntl
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest
from safetensors.torch import load_file
from support.federation import assert_same, assert_same_models
from support.loopback import LoopbackGrid, run_server

import fedkd_flwr as fedkd
from e2e.machine import until

pytestmark = pytest.mark.e2e

ROUNDS = 6
FEDKD = [sys.executable, "-m", "fedkd_flwr"]
ENVIRONMENT = os.environ | {"COLUMNS": "160", "LINES": "50"}


def started(*arguments: str, cwd: Path) -> "subprocess.Popen[str]":
    """`fedkd`, its output in a pipe."""
    return subprocess.Popen(
        [*FEDKD, *arguments],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT,
    )  # fmt: skip


class Terminal:
    """`fedkd` on a terminal of its own; `seen` is all that it has written there. It does not outlive the block."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [*FEDKD, *arguments],
            cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs, env=ENVIRONMENT | {"TERM": "xterm"},
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(theirs)
        self.seen = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()
        os.close(self._ours)

    def press_ctrl_c(self) -> None:
        os.write(self._ours, b"\x03")

    def wait(self, seconds: float) -> int:
        """Its exit code, once all that it wrote is read."""
        code = self.process.wait(seconds)
        self._reader.join(seconds)
        return code

    def _read(self) -> None:
        with suppress(OSError):  # the other end is closed
            while piece := os.read(self._ours, 1 << 16):
                self.seen += piece.decode(errors="replace")


def test_a_simulation_killed_and_stopped_resumes_to_the_student_of_an_undisturbed_one(
    config_file: Callable[..., Path], run_config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """SIGKILL in a round, then Ctrl-C in another; what that prints ends where loopback ends, bit for bit.

    All of it with the installed app. What the killed rounds sent stays counted.
    """
    config = config_file(num_rounds=ROUNDS)
    folder = tmp_path / "runs" / "run"
    first = started("run", "--nodes", "3", "-c", str(config), cwd=tmp_path)
    deadline = time.monotonic() + 240
    while not (folder / "checkpoints" / "00000002").is_dir():
        assert first.poll() is None and time.monotonic() < deadline, first.communicate()[0]
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    written = (folder / "traffic.csv").read_bytes()
    assert not (folder / "student").exists(), "the run was over before it could be killed"

    with Terminal("run", "--resume", str(folder), cwd=tmp_path) as second:
        until(
            lambda: "have trained" in second.seen or second.process.poll() is not None, 240, lambda: second.seen[-5000:]
        )
        second.press_ctrl_c()
        assert second.wait(60) == 128 + signal.SIGINT, second.seen[-5000:]
    assert f"of {ROUNDS}" in second.seen and "stopped by SIGINT" in second.seen
    assert re.search(rf"kept: rounds 1 to \d of {ROUNDS} in {folder}", second.seen), second.seen
    assert "INFO" not in second.seen
    (command,) = re.findall(r"continue it with: (.*?)\s*$", second.seen, re.MULTILINE)
    name, *arguments = shlex.split(command)
    assert name == "fedkd"

    third = started(*arguments, cwd=tmp_path)
    out, _ = third.communicate(timeout=240)
    assert third.returncode == 0, out
    assert str(folder) in out and re.search(rf"{ROUNDS} +3/3", out), out
    lines = [line for line in out.splitlines() if line.startswith("fedkd: ")]
    for said in (f"round {ROUNDS} of {ROUNDS}: 3 nodes train", f"finished after round {ROUNDS}", "log: runs/run.log"):
        assert any(said in line for line in lines), out
    assert "INFO" not in out and "[ROUND" in (tmp_path / "runs" / "run.log").read_text()

    nodes = [{"partition-id": i, "num-partitions": 3} for i in range(3)]
    loopback = run_server(LoopbackGrid(run_config(num_rounds=ROUNDS, run_name="loopback"), nodes))
    assert_same(*(load_file(path / "student/model.safetensors") for path in (folder, loopback)))
    histories = [json.loads((path / "history.json").read_text()) for path in (folder, loopback)]
    for mine, theirs in zip(*(history["rounds"] for history in histories), strict=True):
        assert mine["student"] == theirs["student"] and mine["teachers"] == theirs["teachers"]
    assert (folder / "traffic.csv").read_bytes().startswith(written[: written.rfind(b"\n") + 1])
    with (folder / "traffic.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for way in ("up", "down"):
        counted = sum(entry[f"bytes-{way}"] for entry in histories[0]["rounds"])
        assert counted == sum(int(row["bytes"]) for row in rows if row["direction"] == way) > 0


def test_simulate_with_ray_is_simulate_in_this_process(
    run_config: Callable[..., dict[str, Any]], tweets_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from datasets import load_dataset

    rows = load_dataset("csv", data_files=str(tweets_csv), split="train").select(range(60))
    config = fedkd.RunConfig.parse(run_config(node_wait_seconds=60))
    clients = fedkd.partition(rows, num_partitions=2)
    local = fedkd.simulate(config, clients, runs_dir=tmp_path / "local", progress=False)
    assert capsys.readouterr().out == ""
    ray = fedkd.simulate(config, clients, runs_dir=tmp_path / "ray", engine="ray")
    assert_same_models(ray.folder, local.folder)
    out = capsys.readouterr().out
    assert "fedkd: finished after round 2\n" in out and "INFO" not in out
