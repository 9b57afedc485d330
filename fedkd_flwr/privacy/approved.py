"""Which Flower apps the owner of a node approves, and the commands that let a SuperNode run no other.

A folder of the owner's, first on the PATH of a SuperNode, holds one command for each kind of process that Flower would
start there, and the file `approved.txt`: the hash of one app a line. No message reaches that folder.
"""

import hashlib
import os
import re
import shutil
import sys
from pathlib import Path

from fedkd_flwr.errors import ConfigError, StateError
from fedkd_flwr.runtime.disk import flush

APPROVED = "approved.txt"
_CLIENT = "flwr-clientapp"
_MODULE = "fedkd_flwr.client.pinned_app"
_HASH = re.compile(r"[0-9a-f]{64}")
_OTHERS_WRITE = 0o022

_COMMAND = """#!/bin/sh
'''exec' "{python}" -P "$0" "$@"
' '''
from {module} import main

main({approved!r})
"""
"""A shell script that runs itself in Python: a first line with the path of Python may be too long for a system."""


def app_hash(app: Path) -> str:
    """The SHA-256 of the app in a folder as `flwr run` sends it.

    Raises:
        ConfigError: Flower cannot bundle it.
    """
    from flwr.cli.build import build_fab_from_disk

    try:
        return hashlib.sha256(build_fab_from_disk(app)).hexdigest()
    except Exception as error:
        raise ConfigError(f"{app} is no Flower app: {' '.join(str(error).split())}") from None


def install(folder: Path) -> None:
    """Write the commands into a folder; what is approved there stays.

    Raises:
        StateError: it cannot be written, or holds commands of others.
    """
    from flwr.supercore.constant import TASK_TYPE_TO_COMMAND

    folder = folder.absolute()
    approved = str(folder / APPROVED)
    command = _COMMAND.format(python=sys.executable, module=_MODULE, approved=approved)
    places = [folder / str(name) for name in TASK_TYPE_TO_COMMAND.values()]
    for place in places:
        if place.exists() and not _is_ours(place):
            raise StateError(f"{place} is another command: name a folder of its own, such as /etc/fedkd/bin")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place in places:
            _write(place, command, 0o755)
        if not Path(approved).exists():
            _write(Path(approved), "", 0o600)
    except OSError as error:
        raise StateError(f"{folder} cannot be written: {error.strerror}") from None


def installed() -> Path:
    """The folder whose commands a SuperNode with this PATH starts.

    Raises:
        ConfigError: it would start Flower's own.
    """
    found = shutil.which(_CLIENT)
    if found is None or not _is_ours(Path(found)):
        raise ConfigError(
            f"the first {_CLIENT} on PATH is {found or 'not there'}, which runs any app: `fedkd silo install-wrapper "
            "DIR`, then put DIR first on PATH, here and where the SuperNode starts"
        )
    return Path(found).absolute().parent


def approve(folder: Path, app: str) -> None:
    """Let nodes that use the commands of a folder run an app.

    Raises:
        ConfigError: this is no hash.
        StateError: the file of hashes cannot be read or written, or is not the owner's alone.
    """
    if not _HASH.fullmatch(app):
        raise ConfigError(f"{app!r} is no hash of an app: 64 hexadecimal digits, as `fedkd silo hash APP` prints them")
    place = folder / APPROVED
    known = approved(place)
    if app in known:
        return
    try:
        _write(place, "".join(f"{line}\n" for line in [*known, app]), 0o600)
    except OSError as error:
        raise StateError(f"{place} cannot be written: {error.strerror}") from None


def approved(place: Path) -> list[str]:
    """The hashes in a file.

    Raises:
        StateError: it cannot be read, or somebody else may write it.
    """
    try:
        if any(path.stat().st_mode & _OTHERS_WRITE for path in (place, place.parent)):
            raise StateError(f"others may write {place} or its folder: chmod go-w both, then look at what is approved")
        lines = place.read_text(encoding="utf-8").split()
    except (OSError, ValueError) as error:
        raise StateError(f"{place} cannot be read: {error}") from None
    if wrong := [line for line in lines if not _HASH.fullmatch(line)]:
        raise StateError(f"{place}: {wrong[0]!r} is no hash of an app: 64 hexadecimal digits, one hash a line")
    return lines


def _is_ours(command: Path) -> bool:
    try:
        return f"from {_MODULE} import main" in command.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _write(place: Path, text: str, mode: int) -> None:
    """Replace a file at once; nobody but its owner may ever write it."""
    fresh = place.with_name(f".{place.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
    fresh.chmod(mode)
    flush(fresh)
    fresh.replace(place)
