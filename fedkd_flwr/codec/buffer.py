"""Bounds-checked reading and writing of integers, texts, float32 numbers and raw bytes."""

import math

import numpy as np
import torch
from torch import Tensor

from fedkd_flwr.errors import CodecError

_FLOAT32 = np.dtype("<f4")
_VARINT_BITS = 63


class Writer:
    """Grows a byte string.

    Attributes:
        parts: its pieces, in their order.
    """

    def __init__(self) -> None:
        self.parts: list[bytes | memoryview] = []

    def varint(self, number: int) -> None:
        """Append a non-negative integer, seven bits a byte, low bits first (LEB128)."""
        encoded = bytearray()
        while number >= 0x80:
            encoded.append(number & 0x7F | 0x80)
            number >>= 7
        encoded.append(number)
        self.parts.append(bytes(encoded))

    def varints(self, numbers: tuple[int, ...]) -> None:
        """Append the count of some integers, then each."""
        self.varint(len(numbers))
        for number in numbers:
            self.varint(number)

    def text(self, text: str) -> None:
        """Append the length of a text in UTF-8, then its bytes."""
        encoded = text.encode()
        self.varint(len(encoded))
        self.parts.append(encoded)

    def raw(self, encoded: bytes | memoryview) -> None:
        """Append bytes as they are; their number must follow from the rest."""
        self.parts.append(encoded)

    def getvalue(self) -> bytes:
        """Return all that was written."""
        return b"".join(self.parts)


class Reader:
    """Reads back what a Writer wrote; every method raises CodecError where the bytes are not that."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._rest = memoryview(data)

    def varint(self) -> int:
        """Read a non-negative integer below 2^63."""
        number = 0
        for shift in range(0, _VARINT_BITS, 7):
            (byte,) = self.raw(1)
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
        raise CodecError("a number is too long")

    def varints(self, most: int) -> tuple[int, ...]:
        """Read a count of at most `most`, and as many integers."""
        count = self.varint()
        if count > most:
            raise CodecError(f"{count} numbers where at most {most} may be")
        return tuple(self.varint() for _ in range(count))

    def text(self) -> str:
        """Read a text."""
        try:
            return str(self.raw(self.varint()), "utf-8")
        except UnicodeDecodeError:
            raise CodecError("a name is not UTF-8") from None

    def floats(self, shape: tuple[int, ...]) -> Tensor:
        """Read finite float32 numbers of `shape` into memory of their own."""
        encoded = self.raw(math.prod(shape) * _FLOAT32.itemsize)
        array = np.frombuffer(encoded, dtype=_FLOAT32).astype(np.float32)
        if not np.isfinite(array).all():
            raise CodecError("holds inf or nan")
        return torch.from_numpy(array).reshape(shape)

    def end(self) -> None:
        """Check that nothing is left."""
        if self._rest:
            raise CodecError(f"{len(self._rest)} bytes too many")

    def raw(self, count: int) -> memoryview:
        """Read the next `count` bytes."""
        if count > len(self._rest):
            raise CodecError("ends too early")
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken
