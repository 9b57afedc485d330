import hashlib
import shutil
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from flwr.supercore.constant import TASK_TYPE_TO_COMMAND
from typer.testing import CliRunner

from fedkd_flwr.cli.main import app
from fedkd_flwr.errors import ConfigError, FedKDError, StateError
from fedkd_flwr.privacy.approved import APPROVED, app_hash, approve, approved, install, installed

ROOT = Path(__file__).parent.parent.parent
ONE, OTHER = "1" * 64, "0123456789abcdef" * 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    install(tmp_path / "bin of an owner")
    return tmp_path / "bin of an owner"


def test_an_app_has_one_hash_which_is_that_of_what_flower_builds(tmp_path: Path) -> None:
    """A copy of its files elsewhere has it, too."""
    copy = tmp_path / "fedkd-flwr"
    shutil.copytree(ROOT / "fedkd_flwr", copy / "fedkd_flwr")
    for name in ("pyproject.toml", "client_app.py", "server_app.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    flwr = Path(sysconfig.get_path("scripts"), "flwr")
    subprocess.run([flwr, "build", "--app", copy], cwd=tmp_path, check=True, capture_output=True)
    (built,) = tmp_path.glob("*.fab")
    found = app_hash(copy)
    assert found == hashlib.sha256(built.read_bytes()).hexdigest() == app_hash(ROOT)
    (copy / "client_app.py").write_text("import os\n")
    assert app_hash(copy) != found
    with pytest.raises(ConfigError, match="is no Flower app"):
        app_hash(tmp_path)


def test_a_command_stands_for_each_that_a_supernode_may_start(folder: Path) -> None:
    """A run of another kind of app, an AgentApp, makes it start another one."""
    commands = {path.name for path in folder.iterdir()} - {APPROVED}
    assert commands == {str(name) for name in TASK_TYPE_TO_COMMAND.values()} >= {"flwr-clientapp", "flwr-agentapp"}
    for name in commands:
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o755
    done = subprocess.run([folder / "flwr-agentapp", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "Run a Flower ClientApp" in done.stdout, done.stderr


def test_approved_hashes_are_kept_in_a_file_of_the_owner(folder: Path) -> None:
    place = folder / APPROVED
    assert approved(place) == []
    for one in (ONE, OTHER, ONE):
        approve(folder, one)
    install(folder)
    assert approved(place) == [ONE, OTHER]
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("wrong", ["", "1234", ONE.replace("1", "A"), ONE + "\n", f"{ONE}\n{OTHER}", "../" + ONE])
def test_what_is_no_hash_is_not_approved(folder: Path, wrong: str) -> None:
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        approve(folder, wrong)
    assert approved(folder / APPROVED) == []


def test_a_list_that_others_may_write_approves_nothing(folder: Path) -> None:
    approve(folder, ONE)
    for path in (folder, folder / APPROVED):
        mode = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode | 0o020)
        with pytest.raises(StateError, match="others may write"):
            approved(folder / APPROVED)
        path.chmod(mode)
    (folder / APPROVED).write_text("all\n")
    with pytest.raises(StateError, match="no hash"):
        approved(folder / APPROVED)
    (folder / APPROVED).unlink()
    with pytest.raises(StateError, match="cannot be read"):
        approved(folder / APPROVED)


def test_commands_of_others_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "flwr-clientapp").write_text("theirs")
    with pytest.raises(StateError, match="is another command"):
        install(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["flwr-clientapp"]
    assert (tmp_path / "flwr-clientapp").read_text() == "theirs"


def test_the_folder_is_the_one_that_a_supernode_with_this_path_uses(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flowers = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", f"{folder}:{flowers}")
    assert installed() == folder
    for path in (f"{flowers}:{folder}", "/nowhere"):
        monkeypatch.setenv("PATH", path)
        with pytest.raises(FedKDError, match="put DIR first on PATH"):
            installed()


def test_the_commands_of_the_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fedkd(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["silo", *arguments])
        return done.exit_code, done.output

    folder = tmp_path / "bin"
    monkeypatch.setenv("PATH", f"{folder}:{Path(sys.executable).parent}")
    code, said = fedkd("approve", ONE)
    assert code == 2 and len(said.splitlines()) == 1 and "install-wrapper" in said
    code, said = fedkd("install-wrapper", str(folder))
    assert code == 0 and f"PATH={folder}:$PATH" in said
    code, said = fedkd("hash", str(ROOT))
    assert (code, said) == (0, f"{app_hash(ROOT)}\n")
    assert fedkd("approve", said.strip())[0] == 0 and approved(folder / APPROVED) == [app_hash(ROOT)]
    code, said = fedkd("approve", "1234")
    assert code == 2 and len(said.splitlines()) == 1 and "'1234' is no hash" in said
