"""Code of the documentation, run as a user would on MiniLM, but on a tiny model."""

from pathlib import Path
from typing import Any


def run_on_tiny(code: str, tiny_bert: Path) -> dict[str, Any]:
    """Run code that names MiniLM and the budget of the documentation; returns the names that it leaves."""
    tiny = {
        '"minilm-l6"': f'"{tiny_bert}", "student_layers": 2',
        '{"budget": "384x"}': '{"budget": "16x"}, run={"threads": 1}',
    }
    assert all(usual in code for usual in tiny)
    for usual, small in tiny.items():
        code = code.replace(usual, small)
    names: dict[str, Any] = {}
    exec(compile(code, "<the documentation>", "exec"), names)
    return names
