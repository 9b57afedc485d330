"""Folders and top modules import only from below: the order that docs/architecture.md says, and no circle anywhere."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import fedkd_flwr

PACKAGE = Path(fedkd_flwr.__file__).parent
PAGE = (PACKAGE.parent / "docs" / "architecture.md").read_text()
ORDER = re.findall(r"`(\w+)`", next(line for line in PAGE.splitlines() if line.startswith("Order: ")))
"""Folders and modules of the package, from the top down."""


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


def imports_of(path: Path, also_for_types: bool = True) -> set[str]:
    """Names of this package's modules that a file imports, wherever in it, also in functions."""
    tree, found = ast.parse(path.read_text()), set[str]()
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in set(ast.walk(tree)) - (set() if also_for_types else for_types):
        match node:
            case ast.ImportFrom(module=str(module), names=names) if module.partition(".")[0] == "fedkd_flwr":
                inner = {f"{module}.{name.name}" for name in names}
                found |= {name if name in MODULES else module for name in inner}
            case ast.Import(names=names):
                found |= {name.name for name in names if name.name.startswith("fedkd_flwr.")}
    return found


def test_arrows_between_folders_run_one_way() -> None:
    top = {name.removeprefix("fedkd_flwr").lstrip(".").partition(".")[0] for name in MODULES} - {"", "__main__"}
    assert sorted(ORDER) == sorted(top), "the page names every folder and top module, once"
    upward = [
        f"{module} imports {imported}"
        for module, path in MODULES.items()
        for imported in imports_of(path)
        if (here := module.split(".")[1:2]) not in ([], ["__main__"])
        and ORDER.index(here[0]) > ORDER.index(imported.split(".")[1])
    ]
    assert not upward


def test_no_circle_between_modules() -> None:
    """What is imported for types only makes none: rules that hold for a run config are called by it."""
    TopologicalSorter({name: imports_of(path, also_for_types=False) for name, path in MODULES.items()}).prepare()


def test_no_module_is_long() -> None:
    assert not [name for name, path in MODULES.items() if len(path.read_text().splitlines()) > 300]
