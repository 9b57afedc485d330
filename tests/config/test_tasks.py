"""A task is described once: the description holds for the task, and no other module speaks of it by name."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import fedkd_flwr
from fedkd_flwr.config.tasks import TASKS
from fedkd_flwr.runtime.registry import readers_of

PACKAGE = Path(fedkd_flwr.__file__).parent
DESCRIBED = PACKAGE / "config" / "tasks.py"


@pytest.mark.parametrize("name", TASKS)
def test_a_description_holds_for_its_task(name: str) -> None:
    spec = TASKS[name]
    module, _, kind = spec.place.partition(":")
    link = getattr(import_module(module), kind).link
    assert spec.adjusts == (link is not None)
    assert (link == "sigmoid") == (spec.labels == "several")
    assert set(spec.metrics.shown) <= set(spec.metrics.names)
    assert all(name in readers_of(key, TASKS) for key in spec.keys)


def test_no_module_but_a_task_itself_compares_its_name() -> None:
    others = [path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE / "tasks" and path != DESCRIBED]
    found = [
        f"{path.name}: {line.strip()}"
        for path in others
        for line in path.read_text().splitlines()
        if any(f'"{name}"' in line for name in TASKS) and "task: str =" not in line
    ]
    assert not found


def test_a_run_config_is_read_without_the_libraries_that_run_it() -> None:
    code = "import sys; from fedkd_flwr.config.schema import RunConfig; RunConfig(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
