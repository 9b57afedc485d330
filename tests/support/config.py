"""Run-config keys in short, for tests."""

from typing import Any

from fedkd_flwr.config.schema import RunConfig


def _snake(key: str) -> str:
    return key.replace(".", "_").replace("-", "_")


_SHORT = {_snake(key.rpartition(".")[2]): key for key in RunConfig.defaults()} | {"codec": "codec.kind"}
_LONG = {_snake(key): key for key in RunConfig.defaults()}


def keys(**changes: Any) -> dict[str, Any]:
    """Run-config keys by their last names: `keys(local_steps=3, run_name="a")`; others stay, for errors."""
    return {_LONG.get(name) or _SHORT.get(name) or name.replace("_", "-"): value for name, value in changes.items()}
