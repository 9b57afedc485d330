"""The interface of an encoded tensor: its numbers, its bytes and the energy that it keeps."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor

from fedkd_flwr.codec.buffer import Reader, Writer
from fedkd_flwr.codec.shapes import Shape


@dataclass(frozen=True, eq=False)
class EncodedTensor(ABC):
    """One tensor of an encoded update, on the CPU.

    Attributes:
        tag: the kind's number on the wire; never reused.
        kind: the kind's name in reports.
        shape: of the tensor that was encoded.
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
        """The highest rank that the encoding can carry."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of its payload on the wire."""

    @abstractmethod
    def measured(self, tensor: Tensor, total: float) -> Self:
        """A copy with the share of energy that it keeps of `tensor`, float32, whose squared norm is `total` > 0."""

    @abstractmethod
    def decode(self) -> Tensor:
        """The float32 tensor of `shape`, in memory of its own."""

    @abstractmethod
    def write(self, header: Writer, payload: Writer) -> None:
        """Append all that the kind needs beyond name, tag and shape."""

    @classmethod
    @abstractmethod
    def read(cls, shape: Shape, energy: float, header: Reader, payload: Reader) -> Self:
        """Read back what `write` wrote; CodecError where that is not possible."""
