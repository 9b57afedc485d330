"""What an update holds for one tensor: one frozen type a kind, each with its numbers and its bytes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from fedkd_flwr.codec.buffer import Reader, Writer
from fedkd_flwr.codec.energy import claimed
from fedkd_flwr.codec.host import to_host
from fedkd_flwr.codec.quantization import Rows
from fedkd_flwr.errors import CodecError

Shape = tuple[int, ...]

_IN_RANGE = (1e-20, 1e30)
_LONG_ROW = 64  # numbers in a row from which on a scale of its own costs little


def matrix_shape(shape: Shape) -> tuple[int, int]:
    """The [out, rest] that a tensor of `shape` is flattened to: [n, 1] for a vector, [1, 1] for a scalar."""
    return (shape[0], math.prod(shape[1:])) if shape else (1, 1)


def finite_float32(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each, detached, in float32 on the CPU.

    Raises:
        CodecError: names one that is no tensor of real floats, or holds a number that float32 cannot.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise CodecError(f"tensor {name!r} is {tensor.dtype}: only floating-point tensors can be encoded")
    single = to_host([tensor.detach().to(torch.float32) for tensor in tensors.values()])
    for name, tensor in zip(tensors, single, strict=True):
        if tensor.numel() and not torch.isfinite(torch.stack(tensor.aminmax())).all():
            raise CodecError(f"tensor {name!r} holds inf, nan or a number beyond float32")
    return dict(zip(tensors, single, strict=True))


def squared_norm(tensor: Tensor) -> float:
    """Of float32 numbers: within rows in float32, four times as fast, where their squares are in its range."""
    rows = tensor.detach().reshape(matrix_shape(tuple(tensor.shape)))
    in_float32 = torch.linalg.vector_norm(rows, dim=1).double().square().sum()
    if _IN_RANGE[0] < in_float32 < _IN_RANGE[1]:
        return float(in_float32)
    return float(torch.linalg.vector_norm(rows, dtype=torch.float64)) ** 2


@dataclass(frozen=True, eq=False)
class Record(ABC):
    """One tensor of an encoded update, on the CPU.

    Attributes:
        tag: the kind's number on the wire; never reused.
        kind: the kind's name in reports.
        shape: of the tensor.
        energy: at least this share of the squared norm is kept; 0 as long as nobody has measured it.
    """

    tag: ClassVar[int]
    kind: ClassVar[str]
    shape: Shape
    energy: float = 0.0

    @property
    @abstractmethod
    def bits(self) -> int:
        """Bits of each number sent, before Huffman coding; of the widest where there are several widths."""

    @property
    @abstractmethod
    def rank(self) -> int:
        """The highest rank that the record can carry."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of its payload on the wire."""

    @abstractmethod
    def measured(self, tensor: Tensor, total: float) -> Self:
        """With the energy that it keeps of `tensor`, float32, whose squared norm is `total` > 0."""

    @abstractmethod
    def decode(self) -> Tensor:
        """The float32 tensor of `shape`, in memory of its own."""

    @abstractmethod
    def write(self, header: Writer, payload: Writer) -> None:
        """Append what the kind needs beyond name, tag and shape."""

    @classmethod
    @abstractmethod
    def read(cls, shape: Shape, energy: float, header: Reader, payload: Reader) -> Self:
        """Read back what `write` wrote; CodecError where that is not possible."""


@dataclass(frozen=True, eq=False)
class Empty(Record):
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
        """From the shape alone."""
        return cls(shape, energy)


@dataclass(frozen=True, eq=False)
class Dense(Record):
    """A tensor number by number: one scale for all of it, or one for each row of [out, rest] where those are long."""

    tag = 1
    kind = "dense"
    rows: Rows = field(kw_only=True)

    @classmethod
    def of(cls, tensor: Tensor, bits: int = 32) -> Self:
        """A copy of a float32 tensor, quantised."""
        shape = tuple(tensor.shape)
        values = tensor.reshape(_dense_rows(shape, bits))
        rows = Rows.of(values.clone() if bits == 32 else values, bits)
        return cls(shape, 1.0 if bits == 32 else 0.0, rows=rows)

    @property
    def bits(self) -> int:
        """Of every number."""
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
        """From the distance of the values."""
        if self.bits == 32:
            return self
        dropped = squared_norm(tensor - self.rows.values.reshape(self.shape))
        return replace(self, energy=claimed(1 - dropped / total) if dropped else 1.0)

    def decode(self) -> Tensor:
        """A copy of the values."""
        return self.rows.values.reshape(self.shape).clone()

    def write(self, header: Writer, payload: Writer) -> None:
        """The bits in the header; the rows."""
        header.varint(self.bits)
        self.rows.write(header, payload)

    @classmethod
    def read(cls, shape: Shape, energy: float, header: Reader, payload: Reader) -> Self:
        """The rows."""
        bits = header.varint()
        return cls(shape, energy, rows=Rows.read(bits, *_dense_rows(shape, bits), header, payload))


def _dense_rows(shape: Shape, bits: int) -> tuple[int, int]:
    return scaled_rows(shape) if bits < 32 else (1, math.prod(shape))


def scaled_rows(shape: Shape) -> tuple[int, int]:
    """Rows and columns of the numbers of a tensor, where each row has a scale."""
    out, rest = matrix_shape(shape)
    return (out, rest) if rest >= _LONG_ROW else (1, out * rest)
