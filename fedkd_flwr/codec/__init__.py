"""Low-rank codec for updates of named tensors: pure torch, usable without Flower."""

from fedkd_flwr.codec.allocate import Allocation, Budget, Energy, Uniform
from fedkd_flwr.codec.codec import UpdateCodec
from fedkd_flwr.codec.encoded import EncodedUpdate, TensorRow
from fedkd_flwr.codec.factorize import Factors, factorize
from fedkd_flwr.codec.feedback import ErrorFeedback
from fedkd_flwr.codec.schedule import BudgetSchedule, EnergySchedule
from fedkd_flwr.errors import CodecError

__all__ = [
    "Allocation",
    "Budget",
    "BudgetSchedule",
    "CodecError",
    "EncodedUpdate",
    "Energy",
    "EnergySchedule",
    "ErrorFeedback",
    "Factors",
    "TensorRow",
    "Uniform",
    "UpdateCodec",
    "factorize",
]
