"""Files that are there whole or not at all."""

import json
import os
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
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
    flush(fresh)
    fresh.replace(path)
