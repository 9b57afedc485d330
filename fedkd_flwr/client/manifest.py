"""The manifest of a node's state: what can be known of it without its tensors."""

import json
from pathlib import Path
from typing import Any

FORMAT = 7
"""Of node states."""

MANIFEST = "state.json"


def newest_state(node: Path) -> Path | None:
    """The folder of the newest state below a node's folder; None where there is none."""
    return max(node.glob("[0-9]" * 8), default=None)


def read_manifest(state: Path) -> dict[str, Any]:
    """The manifest in the folder of a state, of whatever format.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON, or holds no keys and values.
    """
    return dict(json.loads((state / MANIFEST).read_text()))
