"""Names that become parts of paths: of nodes and of lineages. Nothing else of a message or a node config does."""

import re
import unicodedata
import zlib
from collections.abc import Mapping
from typing import Any

from fedkd_flwr.errors import ConfigError

NODE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
LINEAGE_PATTERN = r"^[0-9a-f]{16}$"

_LONGEST = 64


def is_node(name: str) -> bool:
    """Whether a node may have this name."""
    return re.fullmatch(NODE_PATTERN[1:-1], name) is not None


def is_lineage(name: str) -> bool:
    """Whether a lineage may have this name: 16 hexadecimal digits."""
    return re.fullmatch(LINEAGE_PATTERN[1:-1], name) is not None


def fitting(text: str) -> str:
    """A name that a node may have, made of any text: its letters and digits, without accents."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).lstrip("._-")[:_LONGEST].rstrip("-")
    return name or f"node-{zlib.crc32(text.encode(errors='replace')):08x}"


def require_identity(node_config: Mapping[str, Any]) -> None:
    """Whether a node config says who the node is in a way that can be a name.

    Raises:
        ConfigError: it does not; names the key.
    """
    name = node_config.get("name", "")
    if name != "" and not is_node(str(name)):
        raise ConfigError(
            f"node-config key 'name' is {name!r} but should be letters, digits, '.', '_' and '-', at most 64, "
            "and begin with a letter or digit",
            outside="node-config key 'name' should be letters, digits, '.', '_' and '-', at most 64",
        )
    for key in ("partition-id", "num-partitions"):
        value = node_config.get(key, 0)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ConfigError(f"node-config key {key!r} is {value!r} but should be a whole number, 0 or more")
