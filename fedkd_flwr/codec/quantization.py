"""Rows of numbers at a few bits each: one scale a row, codes on a uniform grid, Huffman-coded where that is shorter."""

import zlib
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedkd_flwr.codec.buffer import Reader, Writer
from fedkd_flwr.errors import CodecError

WIDTHS = (32, 16, 8, 6, 5, 4, 3)
"""Bits of a number that `QuantizedRows` knows: float32, float16, and codes."""

_RAW_DEFLATE = -15
_SYMBOLS_A_BYTE = 8  # of a Huffman stream, at most
TINY = 2.0**-126


@dataclass(frozen=True, eq=False)
class QuantizedRows:
    """A matrix [k, n] at one width: `codes` times the scale of their row.

    The scale is the row's peak over the largest code 2^(bits - 1) - 1, rounded up to bfloat16, whose products with
    codes are exact in float32. On real updates float32 scales would make 4-bit factors 1 % longer, and the error
    less by 1 % at most. Large codes are rare: the entropy of 8-, 6-, 4- and 3-bit codes is 7.1, 5.1, 3.0 and 1.9
    bits. Deflate's Huffman coder comes within 0.1 bits of it; zstandard needs 7.2, 5.2, 3.6 and 2.5 bits.

    Attributes:
        bits: one of WIDTHS.
        scales: float32 [k], not negative; ones where bits is 32.
        codes: [k, n]; float32, float16 or int8 in -(2^(bits - 1) - 1) ... 2^(bits - 1) - 1.
        stream: the codes as bytes; of float32 and float16 a view of their memory.
    """

    bits: int
    scales: Tensor
    codes: Tensor
    stream: bytes | memoryview

    @classmethod
    def of(cls, values: Tensor, bits: int) -> Self:
        """Quantise to the nearest code.

        Args:
            values: float32 [k, n], finite, on the CPU.
            bits: one of WIDTHS.
        """
        if bits == 32:
            codes, scales = values.contiguous(), torch.ones(len(values))
            return cls(bits, scales, codes, _bytes(codes))
        peaks = row_peaks(values)
        if bits == 16:
            scales = _upper_bfloat16(peaks)
            codes = (values / scales[:, None]).half()
            return cls(bits, scales, codes, _bytes(codes))
        scales = _upper_bfloat16(peaks / _largest(bits))
        codes = (values / scales[:, None]).round().clamp(-_largest(bits), _largest(bits)).to(torch.int8)
        return cls(bits, scales, codes, _shortest(codes, bits))

    @property
    def values(self) -> Tensor:
        """float32 [k, n]."""
        return self.codes if self.bits == 32 else self.codes.float() * self.scales[:, None]

    @property
    def nbytes(self) -> int:
        """Bytes of its payload on the wire."""
        return len(self.stream) + (0 if self.bits == 32 else 2 * len(self.scales))

    def write(self, header: Writer, payload: Writer) -> None:
        """Append scales and codes; to the header, below 16 bits, the bytes that Huffman saves (0: codes are packed)."""
        if self.bits < 16:
            header.varint(packed_nbytes(self.codes.numel(), self.bits) - len(self.stream))
        if self.bits < 32:
            payload.raw(scale_bytes(self.scales))
        payload.raw(self.stream)

    @classmethod
    def read(cls, bits: int, k: int, n: int, header: Reader, payload: Reader) -> Self:
        """Read back what `write` wrote, in memory bounded by a multiple of its bytes; CodecError where that fails."""
        if bits not in WIDTHS:
            raise CodecError(f"{bits} bits a number are unknown")
        if bits == 32:
            codes = payload.floats((k, n))
            return cls(bits, torch.ones(k), codes, _bytes(codes))
        length = 2 * k * n if bits == 16 else packed_nbytes(k * n, bits)
        saved = header.varint() if bits < 16 else 0
        if saved and not length - saved >= k * n / _SYMBOLS_A_BYTE:
            raise CodecError(f"{k * n} codes cannot be in {length - saved} bytes")
        scales = read_scales(payload.raw(2 * k))
        stream = bytes(payload.raw(length - saved))
        if bits == 16:
            codes = torch.from_numpy(np.frombuffer(stream, dtype="<f2").astype(np.float16))
            if not torch.isfinite(codes).all():
                raise CodecError("holds inf or nan")
        else:
            symbols = _inflated(stream, k * n) if saved else unpack_codes(stream, k * n, bits)
            codes = torch.from_numpy((symbols.astype(np.int16) - _largest(bits) - 1).astype(np.int8))
            if (symbols < 1).any() or (symbols > 2 * _largest(bits) + 1).any():
                raise CodecError(f"holds a code beyond {bits} bits")
        return cls(bits, scales, codes.reshape(k, n), stream)


def row_peaks(rows: Tensor) -> Tensor:
    """The largest magnitude [k] in each row of [k, n]; 0 of rows without numbers."""
    return torch.maximum(rows.amax(dim=1), -rows.amin(dim=1)) if rows.numel() else rows.new_zeros(len(rows))


def _largest(bits: int) -> int:
    return (1 << (bits - 1)) - 1


def packed_nbytes(count: int, bits: int) -> int:
    """Bytes of `count` codes without a gap."""
    return (count * bits + 7) // 8


def _upper_bfloat16(positive: Tensor) -> Tensor:
    """Round up to float32 numbers with the lower 16 bits zero, from TINY to the largest of them."""
    encoded = positive.float().clamp(min=TINY).contiguous().view(torch.int32)
    return ((encoded + 0xFFFF) & ~0xFFFF).clamp(max=0x7F7F0000).view(torch.float32)


def scale_bytes(scales: Tensor) -> bytes:
    """Upper halves of float32 numbers whose lower halves are zero."""
    return (scales.numpy().view(np.uint32) >> 16).astype("<u2").tobytes()


def read_scales(encoded: memoryview) -> Tensor:
    """Read back what `scale_bytes` wrote; CodecError where a scale is not positive and finite."""
    scales = torch.from_numpy((np.frombuffer(encoded, dtype="<u2").astype(np.uint32) << 16).view(np.float32))
    if not ((scales >= TINY) & torch.isfinite(scales)).all():
        raise CodecError("holds a scale that is not positive and finite")
    return scales


def _bytes(codes: Tensor) -> memoryview:
    """Contiguous codes as they travel, in their own memory."""
    array = codes.numpy().reshape(-1)
    return array.astype(array.dtype.newbyteorder("<"), copy=False).view(np.uint8).data


def _shortest(codes: Tensor, bits: int) -> bytes:
    """The codes as unsigned symbols, Huffman-coded, or packed where that is no longer."""
    symbols = (codes.flatten().numpy().astype(np.int16) + _largest(bits) + 1).astype(np.uint8)
    coder = zlib.compressobj(9, zlib.DEFLATED, _RAW_DEFLATE, 9, zlib.Z_HUFFMAN_ONLY)
    huffman = coder.compress(symbols.tobytes()) + coder.flush()
    if len(huffman) < packed_nbytes(len(symbols), bits):
        return huffman
    return pack_codes(symbols, bits)


def pack_codes(codes: NDArray[np.uint8], bits: int) -> bytes:
    """The lower `bits` of each code, one after the other, high bits first, and zeros to the next byte."""
    groups = np.zeros((-(-len(codes) // 8), 8), dtype=np.uint8)
    groups.reshape(-1)[: len(codes)] = codes
    words = np.zeros(len(groups), dtype=np.uint64)
    for column in groups.T:
        words = words << np.uint64(bits) | column
    return words.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - bits :].tobytes()[: packed_nbytes(len(codes), bits)]


def unpack_codes(stream: bytes, count: int, bits: int) -> NDArray[np.uint8]:
    """The codes that `pack_codes` wrote; CodecError where they do not end with zeros."""
    if len(stream) * 8 > count * bits and stream[-1] & ((1 << (len(stream) * 8 - count * bits)) - 1):
        raise CodecError("its packed codes do not end with zeros")
    padded = np.zeros((-(-count // 8), 8), dtype=np.uint8)
    padded[:, 8 - bits :] = np.frombuffer(stream.ljust(len(padded) * bits, b"\0"), dtype=np.uint8).reshape(-1, bits)
    words = padded.view(">u8").astype(np.uint64).reshape(-1)
    shifts = np.arange(7, -1, -1, dtype=np.uint64) * np.uint64(bits)
    codes = np.empty((len(words), 8), dtype=np.uint8)
    for column, shift in enumerate(shifts):
        codes[:, column] = (words >> shift) & np.uint64((1 << bits) - 1)
    return codes.reshape(-1)[:count]


def _inflated(stream: bytes, count: int) -> NDArray[np.uint8]:
    inflater = zlib.decompressobj(_RAW_DEFLATE)
    try:
        symbols = inflater.decompress(stream, count + 1)
    except zlib.error:
        raise CodecError("its codes cannot be inflated") from None
    if len(symbols) != count or not inflater.eof or inflater.unused_data:
        raise CodecError("its codes have another length than its shape")
    return np.frombuffer(symbols, dtype=np.uint8)
