"""Low-rank codec for updates of named tensors: pure torch, usable without Flower."""

from fedkd_flwr.codec.allocation import Allocation, Budget, Energy, Uniform
from fedkd_flwr.codec.error_feedback import ErrorFeedback
from fedkd_flwr.codec.schedule import BudgetSchedule, EnergySchedule
from fedkd_flwr.codec.spectrum import Factors, factorize
from fedkd_flwr.codec.update import EncodedUpdate, TensorRow
from fedkd_flwr.codec.update_codec import UpdateCodec
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
