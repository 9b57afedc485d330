"""Where and how a run was started: versions, machine, command, git revision."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fedkd_flwr.runtime.cpus import available_cpus

PACKAGES = ("fedkd-flwr", "flwr", "torch", "transformers")
"""The packages whose versions decide what a run gives."""

_COMMAND, _REVISION = "FEDKD_COMMAND", "FEDKD_GIT_REVISION"
_GIT_SECONDS = 10.0


def version_of(package: str) -> str:
    """The installed version of a package, in words where there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def as_variables() -> dict[str, str]:
    """Environment variables that tell a server process which command of this one started it, and from what revision."""
    return {_COMMAND: _command(), _REVISION: _git_revision()}


def start_of(round: int, variables: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """An entry of `History.environment`: this process starts, or goes on with, a run.

    Args:
        round: the first that it will train.
        variables: those of this process; `as_variables` of another may be among them.
    """
    import torch

    return {
        "from-round": round,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": variables[_COMMAND] if _COMMAND in variables else _command(),
        "git-revision": variables[_REVISION] if _REVISION in variables else _git_revision(),
        "packages": {package: version_of(package) for package in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": available_cpus(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def _command() -> str:
    """This process's own command line; empty in Flower's processes, where it is not the user's and names tokens."""
    program = Path(sys.argv[0])
    if program.name.startswith(("flwr", "flower")):
        return ""
    if program.name == "__main__.py":
        return shlex.join(["python", "-m", program.parent.name, *sys.argv[1:]])
    return shlex.join([program.name, *sys.argv[1:]])


def _git_revision() -> str:
    """The commit that is checked out in the working directory, `-dirty` where files differ; empty where none is."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
