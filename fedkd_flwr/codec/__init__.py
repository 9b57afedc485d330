"""Low-rank codec for updates of named tensors: pure torch, usable without Flower."""

from fedkd_flwr.codec.codec import UpdateCodec
from fedkd_flwr.codec.encoded import EncodedUpdate, TensorRow
from fedkd_flwr.codec.factorize import Factors, factorize
from fedkd_flwr.codec.schedule import EnergySchedule
from fedkd_flwr.errors import CodecError

__all__ = [
    "CodecError",
    "EncodedUpdate",
    "EnergySchedule",
    "Factors",
    "TensorRow",
    "UpdateCodec",
    "factorize",
]
