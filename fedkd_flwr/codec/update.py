"""An encoded update: its encoded tensors and the bytes that travel."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from fedkd_flwr.codec.host import finite_float32
from fedkd_flwr.codec.shapes import Shape
from fedkd_flwr.codec.tensors import Dense, Empty, EncodedTensor
from fedkd_flwr.codec.wire_format import deserialize, serialize, serialized_nbytes
from fedkd_flwr.errors import CodecError

_EXACT_IN_FLOAT32 = {torch.float32, torch.float16, torch.bfloat16}


@dataclass(frozen=True)
class TensorRow:
    """The cost of one tensor of an encoded update, and the energy that it keeps.

    Attributes:
        name: of the tensor.
        kind: "empty", "dense", "rotated" or "factored".
        rank: of the factors; 0 for empty, the full rank for dense and rotated.
        bits: of each number sent; of the leading components of factors.
        nbytes: of its payload.
        energy: at least this share of the squared norm is kept; what came over the wire claims 6 % less at most.
    """

    name: str
    kind: str
    rank: int
    bits: int
    nbytes: int
    energy: float


@dataclass(frozen=True, eq=False)
class EncodedUpdate:
    """Named tensors, encoded. Made by `UpdateCodec.encode`, `dense` or `from_bytes`."""

    _tensors: Mapping[str, EncodedTensor]
    _data: bytes

    @classmethod
    def of(cls, tensors: Mapping[str, EncodedTensor]) -> Self:
        """Serialize encoded tensors, in their order."""
        return cls(tensors, serialize(tensors))

    @staticmethod
    def least_nbytes(tensors: Mapping[str, Tensor]) -> int:
        """The least bytes of any encoding of tensors of these names and shapes."""
        return serialized_nbytes({name: Empty(tuple(tensor.shape), 1.0) for name, tensor in tensors.items()})

    @classmethod
    def dense(cls, tensors: Mapping[str, Tensor]) -> Self:
        """A snapshot: every tensor as it is, exact to the bit.

        Args:
            tensors: float32, float16 or bfloat16, of any shapes, on any devices.

        Raises:
            CodecError: a tensor has another dtype, or holds inf or nan.
        """
        for name, tensor in tensors.items():
            if tensor.dtype not in _EXACT_IN_FLOAT32:
                raise CodecError(f"tensor {name!r} is {tensor.dtype}: a snapshot carries no more than float32")
        return cls.of({name: Dense.of(tensor) for name, tensor in finite_float32(tensors).items()})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read back `to_bytes()`. Call `require` before decoding what a stranger sent.

        Raises:
            CodecError: the bytes are anything else than one intact encoded update.
        """
        return cls(deserialize(data), data)

    def to_bytes(self) -> bytes:
        """The bytes that travel."""
        return self._data

    @property
    def nbytes(self) -> int:
        """len(to_bytes()): header_nbytes plus the nbytes of all rows."""
        return len(self._data)

    @property
    def header_nbytes(self) -> int:
        """Bytes that belong to no single tensor: prefix, header, checksum."""
        return self.nbytes - sum(tensor.nbytes for tensor in self._tensors.values())

    @property
    def shapes(self) -> dict[str, Shape]:
        """Shape of each tensor."""
        return {name: tensor.shape for name, tensor in self._tensors.items()}

    @property
    def ranks(self) -> dict[str, int]:
        """Rank of each tensor as sent: 0 for zeros, the full rank where it is dense."""
        return {name: tensor.rank for name, tensor in self._tensors.items()}

    def rows(self) -> list[TensorRow]:
        """One row a tensor, in the order of the wire."""
        return [
            TensorRow(name, tensor.kind, tensor.rank, tensor.bits, tensor.nbytes, tensor.energy)
            for name, tensor in self._tensors.items()
        ]

    def require(self, shapes: Mapping[str, Shape]) -> None:
        """Check that the update has exactly the tensors of `shapes`, before `decode` allocates them.

        Raises:
            CodecError: names the first tensor that is missing, of another shape, or not expected.
        """
        for name, shape in shapes.items():
            if name not in self._tensors:
                raise CodecError(f"tensor {name!r} is missing from the update")
            if self._tensors[name].shape != tuple(shape):
                raise CodecError(f"tensor {name!r} has shape {list(self._tensors[name].shape)}, expected {list(shape)}")
        for name in self._tensors:
            if name not in shapes:
                raise CodecError(f"tensor {name!r} is not expected in the update")

    def decode(self) -> dict[str, Tensor]:
        """Decode each tensor: float32 in its shape, on the CPU, in memory of its own.

        Raises:
            CodecError: factors of a tensor multiply to more than float32 holds.
        """
        return finite_float32({name: tensor.decode() for name, tensor in self._tensors.items()})
