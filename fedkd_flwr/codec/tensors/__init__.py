"""The encodings of one tensor, one frozen type each: zeros, number by number, as factors, rotated."""

from fedkd_flwr.codec.tensors.base import EncodedTensor
from fedkd_flwr.codec.tensors.dense import Dense, Empty
from fedkd_flwr.codec.tensors.factored import Factored
from fedkd_flwr.codec.tensors.rotated import ROTATED_WIDTHS, Rotated

__all__ = ["ROTATED_WIDTHS", "Dense", "Empty", "EncodedTensor", "Factored", "Rotated"]
