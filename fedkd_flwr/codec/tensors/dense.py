"""A tensor number by number, in float32 or quantised; or not at all."""

import math
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from fedkd_flwr.codec.buffer import Reader, Writer
from fedkd_flwr.codec.energy import claimed, squared_norm
from fedkd_flwr.codec.quantization import QuantizedRows
from fedkd_flwr.codec.shapes import Shape, matrix_shape, scaled_rows
from fedkd_flwr.codec.tensors.base import EncodedTensor


@dataclass(frozen=True, eq=False)
class Empty(EncodedTensor):
    """A tensor that is sent as zeros: no payload."""

    tag = 0
    kind = "empty"
    bits = 0
    rank = 0
    nbytes = 0

    def measured(self, tensor: Tensor, total: float) -> Self:
        """Nothing is kept."""
        return self

    def decode(self) -> Tensor:
        """Zeros."""
        return torch.zeros(self.shape)

    def write(self, header: Writer, payload: Writer) -> None:
        """Nothing."""

    @classmethod
    def read(cls, shape: Shape, energy: float, header: Reader, payload: Reader) -> Self:
        """Make it from the shape alone."""
        return cls(shape, energy)


@dataclass(frozen=True, eq=False)
class Dense(EncodedTensor):
    """A tensor number by number: one scale for all of it, or one for each row of [out, rest] where those are long."""

    tag = 1
    kind = "dense"
    rows: QuantizedRows = field(kw_only=True)

    @classmethod
    def of(cls, tensor: Tensor, bits: int = 32) -> Self:
        """A copy of a float32 tensor, quantised."""
        shape = tuple(tensor.shape)
        values = tensor.reshape(_dense_rows(shape, bits))
        rows = QuantizedRows.of(values.clone() if bits == 32 else values, bits)
        return cls(shape, 1.0 if bits == 32 else 0.0, rows=rows)

    @property
    def bits(self) -> int:
        """Bits of every number."""
        return self.rows.bits

    @property
    def rank(self) -> int:
        """The full rank."""
        return min(matrix_shape(self.shape))

    @property
    def nbytes(self) -> int:
        """Scales and numbers."""
        return self.rows.nbytes

    def measured(self, tensor: Tensor, total: float) -> Self:
        """A copy with the energy that the distance of the values leaves."""
        if self.bits == 32:
            return self
        dropped = squared_norm(tensor - self.rows.values.reshape(self.shape))
        return replace(self, energy=claimed(1 - dropped / total) if dropped else 1.0)

    def decode(self) -> Tensor:
        """A copy of the values."""
        return self.rows.values.reshape(self.shape).clone()

    def write(self, header: Writer, payload: Writer) -> None:
        """Append the bits to the header; the rows."""
        header.varint(self.bits)
        self.rows.write(header, payload)

    @classmethod
    def read(cls, shape: Shape, energy: float, header: Reader, payload: Reader) -> Self:
        """Read the bits and the rows."""
        bits = header.varint()
        return cls(shape, energy, rows=QuantizedRows.read(bits, *_dense_rows(shape, bits), header, payload))


def _dense_rows(shape: Shape, bits: int) -> tuple[int, int]:
    return scaled_rows(shape) if bits < 32 else (1, math.prod(shape))
