"""A tensor of an update as low-rank factors, in float32 or quantised."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from fedkd_flwr.codec.buffer import Reader, Writer
from fedkd_flwr.codec.energy import claimed
from fedkd_flwr.codec.quantization import WIDTHS, QuantizedRows
from fedkd_flwr.codec.shapes import Shape, matrix_shape
from fedkd_flwr.codec.spectrum import Factors
from fedkd_flwr.codec.tensors.base import EncodedTensor
from fedkd_flwr.errors import CodecError

_TINY = 2.0**-126
_CACHED = 1 << 19  # float64 numbers: 4 MB


@dataclass(frozen=True, eq=False)
class Factored(EncodedTensor):
    """A tensor, flattened to [out, rest], as left [out, r] @ right [r, rest] (FedKD, Eq 8).

    Row k of the parts, one after the other, is column k of left and row k of right, [out + rest], with one scale
    for both: where they are quantised, sigma_k is shared out so that their peaks are equal. At equal peaks each
    side has the same relative error as with a scale of its own.
    """

    tag = 2
    kind = "factored"
    parts: tuple[QuantizedRows, ...] = field(kw_only=True)

    @classmethod
    def of(cls, shape: Shape, factors: Factors, widths: Sequence[tuple[int, int]] = ()) -> Self:
        """Quantise float32 factors of the flattened tensor.

        Args:
            shape: of the tensor.
            factors: as many components as the widths sum to.
            widths: (bits, components) in the order of the factors; empty: all in float32.
        """
        widths = widths or ((32, factors.rank),)
        parts, start = [], 0
        for bits, count in widths:
            part = slice(start, start := start + count)
            left, right = factors.left.T[part], factors.right[part]
            rows = torch.cat(_balanced(left, right) if bits < 32 else (left, right), dim=1)
            parts.append(QuantizedRows.of(rows, bits))
        exact = all(part.bits == 32 for part in parts)
        return cls(shape, claimed(factors.energy) if exact else 0.0, parts=tuple(parts))

    @property
    def bits(self) -> int:
        """Bits of the leading components."""
        return self.parts[0].bits

    @property
    def rank(self) -> int:
        """The r of the factors."""
        return sum(len(part.codes) for part in self.parts)

    @property
    def nbytes(self) -> int:
        """Scales and numbers of both factors."""
        return sum(part.nbytes for part in self.parts)

    def factors(self) -> tuple[Tensor, Tensor]:
        """left [out, r] and right [r, rest], float32."""
        rows = torch.cat([part.values for part in self.parts])
        out = matrix_shape(self.shape)[0]
        return rows[:, :out].T, rows[:, out:]

    def measured(self, tensor: Tensor, total: float) -> Self:
        """||G||^2 - ||G - L R||^2 = 2 <G R^T, L> - <L^T L, R R^T>: no more operations than a decoding in float32.

        Exact factors keep what their singular values say.
        """
        if all(part.bits == 32 for part in self.parts):
            return self
        with torch.autocast("cpu", enabled=False):
            sides = self.factors()
            peaks = [side.abs().amax().clamp(min=_TINY) for side in sides]
            left, right = (side / peak for side, peak in zip(sides, peaks, strict=True))
            peak = float(peaks[0]) * float(peaks[1])
            inner = (tensor.reshape(len(left), right.shape[1]) @ right.T * left).sum(dtype=torch.float64)
            square = ((left.T @ left).double() * (right @ right.T).double()).sum()
        return replace(self, energy=claimed(peak * (2 * float(inner) - peak * float(square)) / total))

    def decode(self) -> Tensor:
        """Multiply in float64 and round once.

        Products of codes of up to 8 bits with squared scales are whole multiples of one small number: where scales lie
        within 2^7 of each other and ranks below 256, no sum is rounded, and all machines agree to the last bit, in
        whatever order they add. Of 16 and 32 bits, CPUs and thread counts agree but for a rare last bit.
        So many rows at a time that what is rounded lies in the cache still.
        """
        left, right = self.factors()
        product, wide = torch.empty(len(left), right.shape[1]), right.double()
        rows = -(-len(left) // (1 + product.numel() // _CACHED))
        for start in range(0, len(left), rows):
            product[start : start + rows] = left[start : start + rows].double() @ wide
        return product.reshape(self.shape)

    def write(self, header: Writer, payload: Writer) -> None:
        """Append to the header the number of parts, bits and components of each; the rows."""
        header.varint(len(self.parts))
        for part in self.parts:
            header.varint(part.bits)
            header.varint(len(part.codes))
            part.write(header, payload)

    @classmethod
    def read(cls, shape: Shape, energy: float, header: Reader, payload: Reader) -> Self:
        """Read factors whose rank fits the shape."""
        (out, rest), parts, rank = matrix_shape(shape), [], 0
        count = header.varint()
        if not 1 <= count <= len(WIDTHS):
            raise CodecError(f"{count} parts, where 1 to {len(WIDTHS)} may be")
        for _ in range(count):
            bits, components = header.varint(), header.varint()
            rank += components
            if not 1 <= components <= rank <= min(out, rest):
                raise CodecError(f"rank {rank} does not fit shape {list(shape)}")
            parts.append(QuantizedRows.read(bits, components, out + rest, header, payload))
        return cls(shape, energy, parts=tuple(parts))


def _balanced(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """QuantizedRows [k, out] and [k, rest] with equal peaks and the same products."""
    peaks = [side.abs().amax(dim=1, keepdim=True).clamp(min=_TINY) for side in (left, right)]
    ratio = (peaks[1] / peaks[0]).sqrt()
    return left * ratio, right / ratio
