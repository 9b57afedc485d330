"""`fedkd run`: Flower's simulation engine on Ray, killed and resumed."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from support.federation import assert_same
from support.loopback import LoopbackGrid, run_server

from e2e.machine import ROOT

pytestmark = pytest.mark.e2e

ROUNDS = 4


def fedkd(*arguments: str, cwd: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "fedkd_flwr", "run", str(ROOT), "--nodes", "3", *arguments],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"COLUMNS": "160"},
    )  # fmt: skip


def test_a_killed_simulation_resumes_to_the_student_of_an_undisturbed_one(
    config_file: Callable[..., Path], run_config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """SIGKILL in the middle of a round; the same command with --resume ends where loopback ends, bit for bit.

    What the killed round sent stays counted.
    """
    config = config_file(num_rounds=ROUNDS)
    folder = tmp_path / "runs" / "run"
    first = fedkd("-c", str(config), cwd=tmp_path)
    deadline = time.monotonic() + 240
    while not (folder / "checkpoints" / "00000002").is_dir():
        assert first.poll() is None and time.monotonic() < deadline, first.communicate()[0]
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    written = (folder / "traffic.csv").read_bytes()
    assert not (folder / "student").exists(), "the run was over before it could be killed"

    second = fedkd("--resume", str(folder), cwd=tmp_path)
    out, _ = second.communicate(timeout=240)
    assert second.returncode == 0, out
    assert str(folder) in out and re.search(rf"{ROUNDS} +3/3", out), out

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
