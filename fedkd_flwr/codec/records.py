"""What an update holds for one tensor: one frozen type a kind, each with its numbers and its bytes."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from fedkd_flwr.codec.buffer import Reader, Writer
from fedkd_flwr.codec.factorize import Factors
from fedkd_flwr.errors import CodecError

Shape = tuple[int, ...]


def matrix_shape(shape: Shape) -> tuple[int, int]:
    """The [out, rest] that a tensor of `shape` is flattened to: [n, 1] for a vector, [1, 1] for a scalar."""
    return (shape[0], math.prod(shape[1:])) if shape else (1, 1)


def finite_float32(name: str, tensor: Tensor) -> Tensor:
    """`tensor`, detached, in float32 on its device.

    Raises:
        CodecError: it is no tensor of real floats, or holds a number that float32 cannot.
    """
    if not tensor.is_floating_point():
        raise CodecError(f"tensor {name!r} is {tensor.dtype}: only floating-point tensors can be encoded")
    single = tensor.detach().to(torch.float32)
    if not torch.isfinite(single).all():
        raise CodecError(f"tensor {name!r} holds inf, nan or a number beyond float32")
    return single


@dataclass(frozen=True, eq=False)
class Record(ABC):
    """One tensor of an encoded update, on the CPU.

    Attributes:
        tag: the kind's number on the wire; never reused.
        kind: the kind's name in reports.
        bits: bits of each number sent.
        shape: of the tensor.
    """

    tag: ClassVar[int]
    kind: ClassVar[str]
    bits: ClassVar[int]
    shape: Shape

    @property
    @abstractmethod
    def rank(self) -> int:
        """The highest rank that the record can carry."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of its payload on the wire."""

    @property
    @abstractmethod
    def energy(self) -> float | None:
        """Share of the squared norm that is kept; None where only the sender knows."""

    @abstractmethod
    def decode(self) -> Tensor:
        """The float32 tensor of `shape`, in memory of its own."""

    @abstractmethod
    def write(self, header: Writer, payload: Writer) -> None:
        """Append what the kind needs beyond name, tag and shape."""

    @classmethod
    @abstractmethod
    def read(cls, shape: Shape, header: Reader, payload: Reader) -> Self:
        """Read back what `write` wrote; CodecError where that is not possible."""


@dataclass(frozen=True, eq=False)
class Empty(Record):
    """A tensor of zeros, or of no elements: no payload."""

    tag = 0
    kind = "empty"
    bits = 0
    rank = 0
    nbytes = 0
    energy = 1.0

    def decode(self) -> Tensor:
        """Zeros."""
        return torch.zeros(self.shape)

    def write(self, header: Writer, payload: Writer) -> None:
        """Nothing."""

    @classmethod
    def read(cls, shape: Shape, header: Reader, payload: Reader) -> Self:
        """From the shape alone."""
        return cls(shape)


@dataclass(frozen=True, eq=False)
class Dense(Record):
    """A tensor as it is, `values` in float32."""

    tag = 1
    kind = "dense"
    bits = 32
    energy = 1.0
    values: Tensor

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        """A copy of a float32 tensor."""
        return cls(tuple(tensor.shape), tensor.to("cpu", copy=True).contiguous())

    @property
    def rank(self) -> int:
        """The full rank."""
        return min(matrix_shape(self.shape))

    @property
    def nbytes(self) -> int:
        """Four a number."""
        return self.values.nbytes

    def decode(self) -> Tensor:
        """A copy of the values."""
        return self.values.clone()

    def write(self, header: Writer, payload: Writer) -> None:
        """The values."""
        payload.floats(self.values)

    @classmethod
    def read(cls, shape: Shape, header: Reader, payload: Reader) -> Self:
        """The values."""
        return cls(shape, payload.floats(shape))


@dataclass(frozen=True, eq=False)
class Factored(Record):
    """A tensor, flattened to [out, rest], as left [out, r] @ right [r, rest], both float32."""

    tag = 2
    kind = "factored"
    bits = 32
    left: Tensor
    right: Tensor
    energy: float | None = None

    @classmethod
    def of(cls, shape: Shape, factors: Factors) -> Self:
        """Float32 `factors` of the flattened tensor."""
        return cls(shape, factors.left.cpu(), factors.right.cpu(), factors.energy)

    @property
    def rank(self) -> int:
        """The r of the factors."""
        return self.left.shape[1]

    @property
    def nbytes(self) -> int:
        """Four a number of both factors."""
        return self.left.nbytes + self.right.nbytes

    def decode(self) -> Tensor:
        """Multiply in float64 and round once: CPUs and thread counts agree, but for a rare last bit."""
        return (self.left.double() @ self.right.double()).float().reshape(self.shape)

    def write(self, header: Writer, payload: Writer) -> None:
        """The rank in the header; left, then right."""
        header.varint(self.rank)
        payload.floats(self.left)
        payload.floats(self.right)

    @classmethod
    def read(cls, shape: Shape, header: Reader, payload: Reader) -> Self:
        """Factors whose rank fits the shape."""
        rank, (out, rest) = header.varint(), matrix_shape(shape)
        if not 1 <= rank <= min(out, rest):
            raise CodecError(f"rank {rank} does not fit shape {list(shape)}")
        return cls(shape, payload.floats((out, rank)), payload.floats((rank, rest)))
