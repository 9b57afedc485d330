"""FedKD on Flower: communication-efficient federated fine-tuning of transformers by mutual distillation.

The names below are the public API (docs/python-api.md). Each is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedkd_flwr.api import load_run, simulate
    from fedkd_flwr.codec import EncodedUpdate, UpdateCodec, factorize
    from fedkd_flwr.config.schema import RunConfig
    from fedkd_flwr.data.partition import partition
    from fedkd_flwr.errors import FedKDError
    from fedkd_flwr.tracking.finished_run import Run

_HOMES = {
    "EncodedUpdate": "fedkd_flwr.codec",
    "FedKDError": "fedkd_flwr.errors",
    "Run": "fedkd_flwr.tracking.finished_run",
    "RunConfig": "fedkd_flwr.config.schema",
    "UpdateCodec": "fedkd_flwr.codec",
    "factorize": "fedkd_flwr.codec",
    "load_run": "fedkd_flwr.api",
    "partition": "fedkd_flwr.data.partition",
    "simulate": "fedkd_flwr.api",
}

__all__ = [
    "EncodedUpdate",
    "FedKDError",
    "Run",
    "RunConfig",
    "UpdateCodec",
    "factorize",
    "load_run",
    "partition",
    "simulate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fedkd_flwr' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
