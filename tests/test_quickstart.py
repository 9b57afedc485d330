"""The notebook: its code runs, on a tiny model, and it was committed as it came out of a whole run."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.documented import run_on_tiny

NOTEBOOK = Path(__file__).parent.parent / "examples" / "quickstart.ipynb"


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    found = json.loads(NOTEBOOK.read_text())["cells"]
    return [cell for cell in found if cell["cell_type"] == "code"]


def test_it_is_small_and_each_cell_was_run_in_turn(cells: list[dict[str, Any]]) -> None:
    assert NOTEBOOK.stat().st_size < 100_000
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert all(output["output_type"] != "error" for output in outputs)
    shown = [cell for cell in cells if any(output["output_type"] == "execute_result" for output in cell["outputs"])]
    assert len(shown) == len(cells) - 1  # all but the run itself
    assert not any(path in json.dumps(outputs) for path in ("/home/", "/root/", "/tmp/", "/work/"))


def test_its_code_runs(
    cells: list[dict[str, Any]], tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = "\n".join("".join(cell["source"]) for cell in cells)
    names = run_on_tiny(code, tiny_bert)
    assert names["run"].history.rounds[-1].trained == 3
    assert (tmp_path / "runs").is_dir()
