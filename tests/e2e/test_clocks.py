"""SuperNodes whose clocks are wrong."""

import json
import shutil
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

from e2e.conftest import Deployment

SOURCE = Path(__file__).parent / "lag.c"
COMPILER = shutil.which("cc")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(COMPILER is None or sys.platform != "linux", reason="shifting a clock needs Linux and cc"),
]

LAGS = {"right": 0, "behind": 60, "ahead": -60, "far-behind": 400}
"""Seconds by which the clock of each node lags."""


def lagging(seconds: int, folder: Path) -> dict[str, str]:
    """The environment of a process whose wall clock lags."""
    library = folder / f"lag{seconds}.so"
    subprocess.run([str(COMPILER), "-shared", "-fPIC", f"-DLAG={seconds}", "-o", library, SOURCE], check=True)
    environment = {"LD_PRELOAD": str(library)}
    script = "import time; print(time.time())"
    shown = subprocess.check_output([sys.executable, "-c", script], env=environment)
    assert abs(time.time() - float(shown) - seconds) < 30
    return environment


def test_a_clock_that_lags_is_borne_for_five_minutes_and_one_that_is_ahead_is_not(
    deployment: Deployment, config_file: Callable[..., Path], run_config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """The run ends bit for bit as one of nodes whose clocks are right; nobody waits for those that are turned away."""
    deployment.superlink()
    environment = dict(deployment.env)
    for index, (name, lag) in enumerate(LAGS.items()):
        deployment.env = environment | lagging(lag, tmp_path)
        deployment.supernode(name, f'partition-id={index % 2} num-partitions=2 threads=1 state-dir="{tmp_path / name}"')
    deployment.env = environment
    run = deployment.wait("dep", deployment.run(config_file()), seconds=300)
    assert run["status"] == "finished:completed", deployment.logs()
    for name in ("ahead", "far-behind"):
        assert "Connection attempt failed" in deployment.log(name) and not (tmp_path / name).exists()

    folder = tmp_path / "runs" / "run"
    rounds = json.loads((folder / "history.json").read_text())["rounds"]
    assert [(entry["trained"], entry["failed"]) for entry in rounds] == [(2, {})] * 2
    nodes = [{"partition-id": i, "num-partitions": 2} for i in range(2)]
    undisturbed = run_server(LoopbackGrid(run_config(run_name="loopback"), nodes))
    assert_same(*(load_file(run / "student/model.safetensors") for run in (folder, undisturbed)))
