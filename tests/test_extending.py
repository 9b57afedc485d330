"""The page on extensions, run as it stands: its snippets are a package, and a federation uses all of them."""

import json
import re
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text()
SNIPPETS = dict(re.findall(r"```python\n# (clinic/\w+\.py)\n(.*?)```", PAGE, re.DOTALL))

RUN = """
import json, sys
from flwr.supercore.task_identity import TaskIdentity
from support.federation import nodes
from support.loopback import LoopbackGrid, run_server
TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
run_server(LoopbackGrid(json.loads(sys.argv[1]), nodes(2)))
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with the package of the page, and what pip would write beside it."""
    about = tmp_path / "clinic-1.0.dist-info"
    for folder in (tmp_path / "clinic", about):
        folder.mkdir()
    for name, code in SNIPPETS.items():
        (tmp_path / name).write_text(code)
    block = next(text for text in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL) if "entry-points" in text)
    ((group, modules),) = tomllib.loads(block)["project"]["entry-points"].items()
    assert set(modules.values()) == {name.removesuffix(".py").replace("/", ".") for name in SNIPPETS}
    lines = [f"[{group}]", *(f"{name} = {module}" for name, module in modules.items())]
    (about / "entry_points.txt").write_text("\n".join(lines))
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: clinic\nVersion: 1.0\n")
    return tmp_path


def test_the_snippets_of_the_page_are_a_package_that_a_federation_uses(
    installed: Path, run_config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    assert all(len(code.splitlines()) <= 36 for code in SNIPPETS.values()) and len(SNIPPETS) == 4
    with closing(sqlite3.connect(tmp_path / "letters.db")) as letters, letters:
        letters.execute("create table examples (text, label)")
        rows = [(f"{word} day {number}", word) for number in range(20) for word in ("good", "bad")]
        letters.executemany("insert into examples values (?, ?)", rows)
    defaults = {"codec.kind": "auto", "distillation.student-kl": 0.5, "codec.bits": 8, "num-rounds": 1}
    raw = run_config(task="smoothed", dataset=f"sqlite:{tmp_path / 'letters.db'}", local_steps=1)
    raw |= {"method": "eight-bits"} | defaults
    environment = {"PYTHONPATH": ":".join(map(str, (installed, ROOT, ROOT / "tests"))), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(raw)], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    history = json.loads((tmp_path / "runs" / "run" / "history.json").read_text())
    assert history["config"]["task"] == "smoothed" and history["rounds"][0]["trained"] == 2
    assert {"accuracy", "macro-f1", "f1", "average-precision", "loss"} == history["rounds"][0]["student"].keys()
    assert history["sizes"]["student-bytes"] * 2 / history["rounds"][0]["bytes-up"] > 3, "half the tensors, in 8 bits"
