"""What a server keeps of silos whose files are not what a run needs, on a real SuperLink."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import Deployment
from e2e.machine import as_toml, until

pytestmark = pytest.mark.e2e

SECRET = "Zq7x"
"""Part of every cell, of the names of unnamed columns, and of the folder of the silos."""


def table(header: str = f"text,label,{SECRET}-hiv\n", word: str = "text") -> str:
    return header + "".join(f"{SECRET} {word} {i},{('no', 'yes')[i % 2]},{SECRET}{i}\n" for i in range(80))


SILOS: dict[str, tuple[bytes, str]] = {
    "good": (table().encode(), ""),
    "latin": (table(word="Müller").encode("latin-1"), ""),
    "headless": (table(header="").encode(), ""),
    "mistaken": (table().encode(), 'label-column="text"'),
    "workbook": (b"PK\x03\x04" + f"xl/{SECRET}".encode() * 9, ""),
}


def test_no_cell_no_unnamed_column_and_no_path_reaches_the_server(
    deployment: Deployment, run_config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Neither its log, nor history.json, nor the student; the owner finds all of it in the log of the own node."""
    ward = tmp_path / f"{SECRET}-ward"
    ward.mkdir()
    deployment.superlink()
    for name, (content, own) in SILOS.items():
        (ward / f"{name}.csv").write_bytes(content)
        place = f'name="{name}" data-path="{ward}/{name}.csv" state-dir="{ward}/state" threads=1 policy="off"'
        deployment.supernode(name, f"{place} {own}")
    until(lambda: deployment.log("superlink").count("Activated node_id") == len(SILOS), 120, deployment.logs)
    changes = {"labels": "no,yes", "num_rounds": 1, "local_steps": 1, "min_train_nodes": 1, "node_wait_seconds": 60}
    (tmp_path / "run.toml").write_text(as_toml(run_config(**changes)))
    run_id = deployment.run(tmp_path / "run.toml")
    folder = tmp_path / "runs" / "run"
    until(lambda: (folder / "student" / "config.json").exists(), 300, deployment.logs)
    run = deployment.wait("dep", run_id, seconds=60)
    assert run["status"] == "finished:completed", deployment.log("superlink")

    log = deployment.log("superlink") + subprocess.run(
        ["flwr", "log", run_id, "dep", "--show"],
        env=deployment.env, cwd=deployment.home, capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    kept = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}
    assert json.loads((folder / "history.json").read_text())["rounds"][0]["nodes"].keys() == {"good"}
    for name, words in (
        ("latin", "its data file is no utf-8 text"),
        ("headless", "run-config key 'text-column' names no column of its data"),
        ("mistaken", "a row has a label that is none of those that are named"),
        ("workbook", "its data file is "),
    ):
        assert f"node {name}: {words}" in log
        assert str(ward) in deployment.log(name), "in the node's own log"
    for place, content in {"the log": log.encode(), **kept}.items():
        assert SECRET.encode() not in content, place
