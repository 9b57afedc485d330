"""Files that are there whole or not at all."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def flush(path: Path) -> None:
    """Force a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by strict JSON (no NaN), at once.

    Raises:
        OSError: the disk refuses; the old file is still there.
        ValueError: a number is not finite.
    """
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace `path` by a text, at once.

    Raises:
        OSError: the disk refuses; the old file is still there.
    """
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text, encoding="utf-8")
    flush(fresh)
    fresh.replace(path)


def remove_marked(folder: Path, marker: str) -> None:
    """Remove a folder of files, if it is empty or one of them has this name; any other stays.

    The marker goes last: what a kill leaves of the folder is still known as ours. A disk that refuses is no error.
    """
    with suppress(OSError):
        if (folder / marker).is_file():
            for path in folder.iterdir():
                if path.name != marker:
                    path.unlink()
            (folder / marker).unlink()
        folder.rmdir()


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """An empty folder to write into, which takes the place of `folder` at the end.

    On an error inside, `folder` stays as it was, there or not.

    Raises:
        OSError: the disk refuses.
    """
    fresh, old = (folder.with_name(f".{folder.name}.{state}") for state in ("new", "old"))
    for left in (fresh, old):
        shutil.rmtree(left, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        yield fresh
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """While no other process holds the lock with this file; it goes with its process.

    Args:
        path: of the file, which is made.
        wait: for another process.

    Yields:
        Whether the lock is ours: not where another process holds it, or the file system has no locks.

    Raises:
        OSError: the file cannot be made.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            ours = True
        except OSError:
            ours = False
        yield ours
