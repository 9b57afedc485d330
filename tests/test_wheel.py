"""The built wheel works alone: installed elsewhere, with nothing of the repository on the path of imports."""

import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

from fedkd_flwr.config.documentation import as_toml

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment with the wheel, and with what it depends on from this one."""
    pytest.importorskip("hatchling", reason="the wheel is built without a package index")
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    offline = ["--quiet", "--no-deps", "--no-index"]
    build = [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv/bin/python"
    subprocess.run([*pip, "--python", str(python), "install", *offline, str(wheel)], check=True, cwd=folder)
    (packages,) = (folder / "venv/lib").glob("python*/site-packages")
    # Folders that a .pth file names are searched, the .pth files in them, of an editable install say, are not read.
    theirs = [path for path in sys.path if Path(path).name == "site-packages"]
    (packages / "dependencies.pth").write_text("".join(f"{path}\n" for path in theirs))
    return python.parent


def run(folder: Path, command: Path, *arguments: str) -> str:
    """What a command prints in an empty folder."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([command, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_is_there_and_no_other_module(installed: Path, tmp_path: Path) -> None:
    script = (
        "import importlib.util, fedkd_flwr; print(fedkd_flwr.__file__, fedkd_flwr.RunConfig().num_rounds); "
        "print([importlib.util.find_spec(name) for name in ('client_app', 'server_app', 'tests', 'benchmarks')])"
    )
    first, second = run(tmp_path, installed / "python", "-c", script).splitlines()
    assert Path(first.split()[0]).is_relative_to(installed.parent) and first.split()[1] == "6"
    assert second == "[None, None, None, None]"
    (files,) = installed.parent.glob("lib/python*/site-packages/fedkd_flwr-*.dist-info/RECORD")
    names = {line.split("/")[0] for line in files.read_text().splitlines()}
    assert {name for name in names if not name.endswith("dist-info") and name != ".."} == {"fedkd_flwr"}
    assert any("fedkd_flwr/py.typed" in line for line in files.read_text().splitlines())


def test_the_command_runs_without_a_folder_of_the_app(installed: Path, tmp_path: Path) -> None:
    fedkd = installed / "fedkd"
    assert run(tmp_path, fedkd, "config") == as_toml()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert run(tmp_path, fedkd, "--version").startswith(f"fedkd {version} (flwr ")
