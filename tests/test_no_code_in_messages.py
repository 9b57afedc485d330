"""Nothing that comes from a node or lies on a disk can make this project run code."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted([*(ROOT / "fedkd_flwr").rglob("*.py"), ROOT / "client_app.py", ROOT / "server_app.py"])
FORBIDDEN = {
    "pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve",
    "torch.load", "torch.save", "torch.jit.load", "numpy.load", "np.load",
    "eval", "exec", "compile", "__import__",
}  # fmt: skip


def names(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=aliases):
                yield from (alias.name for alias in aliases)
            case ast.ImportFrom(module=module, names=aliases):
                yield str(module)
                yield from (f"{module}.{alias.name}" for alias in aliases)
            case ast.Call(func=function):
                yield ast.unparse(function)
            case ast.keyword(arg="trust_remote_code", value=ast.Constant(value=False)):
                pass
            case ast.keyword(arg="trust_remote_code"):
                yield "trust_remote_code"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_reads_what_could_be_code(module: Path) -> None:
    found = set(names(module.read_text()))
    assert not found & (FORBIDDEN | {"trust_remote_code"})


@pytest.mark.parametrize(
    "source", ["import pickle", "from torch import load", "torch.load(x)", "f(trust_remote_code=True)"]
)
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert set(names(source)) & (FORBIDDEN | {"trust_remote_code"})
