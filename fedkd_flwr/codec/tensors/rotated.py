"""A tensor number by number, rotated, at 1 to 4 bits."""

import math
import struct
import zlib
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from fedkd_flwr.codec.buffer import Reader, Writer
from fedkd_flwr.codec.energy import claimed
from fedkd_flwr.codec.hadamard import group_sums, groups_of, rotate, rotate_back, spread
from fedkd_flwr.codec.quantization import TINY, pack_codes, packed_nbytes, read_scales, scale_bytes, unpack_codes
from fedkd_flwr.codec.shapes import Shape, matrix_shape
from fedkd_flwr.codec.tensors.base import EncodedTensor
from fedkd_flwr.errors import CodecError

ROTATED_WIDTHS = (4, 3, 2, 1)

# Positive levels of the Lloyd-Max quantiser of a unit Gaussian (Max 1960; Lloyd 1982), by bits.
_LEVELS = {
    1: (0.7978845608,),
    2: (0.4527800346, 1.5104176085),
    3: (0.2450941789, 0.7560052812, 1.3439092785, 2.1519457045),
    4: (0.1283950299, 0.3880482995, 0.6567591185, 0.9423404565, 1.2562311973, 1.6180463860, 2.0690172265, 2.7325895710),
}
_SEEDS = 1 << 16
_HUGE = 3.3e38  # below the largest bfloat16


@dataclass(frozen=True, eq=False)
class Rotated(EncodedTensor):
    """Codes of the rotated numbers, each the nearest level of a Gaussian of its block's variance (DRIVE, Vargaftik et
    al. 2021; EDEN, 2022), and a scale a block.

    The scale is that of the least squared error: error feedback needs an encoding that always comes nearer.

    Attributes:
        width: bits of a number: 1, 2, 3 or 4.
        seed: of the rotation, below 2^16; from the norm, so that it differs by update.
        scales: float32, one a block, see `rotate`.
        codes: uint8 [numel], the index of the level, ascending.
    """

    tag = 3
    kind = "rotated"
    width: int = field(kw_only=True)
    seed: int = field(kw_only=True)
    scales: Tensor = field(kw_only=True)
    codes: Tensor = field(kw_only=True)

    @classmethod
    def of(cls, tensor: Tensor, bits: int) -> Self:
        """Rotate and quantise a float32 tensor that is not empty.

        Args:
            tensor: any shape, on the CPU.
            bits: 1, 2, 3 or 4.
        """
        flat = tensor.detach().reshape(-1)
        peak = flat.abs().amax().clamp(min=TINY)
        seed = zlib.crc32(struct.pack("<d", float(torch.linalg.vector_norm(flat, dtype=torch.float64)))) % _SEEDS
        rotated = rotate(flat / peak, seed)
        squares = group_sums(rotated.square())
        deviations = (squares / group_sums(torch.ones_like(rotated))).sqrt().clamp(min=TINY)
        levels = _levels(bits)
        codes = torch.bucketize(rotated / spread(deviations, len(flat)), (levels[1:] + levels[:-1]) / 2, out_int32=True)
        chosen = levels[codes]
        inner, square = group_sums(rotated * chosen), group_sums(chosen.square())
        scales = (inner / square * peak).clamp(TINY, _HUGE).bfloat16().float()
        sent = scales.double() / peak.double()
        kept = float((sent * (2 * inner - sent * square)).sum() / squares.sum(dtype=torch.float64))
        return cls(
            tuple(tensor.shape),
            claimed(kept),
            width=bits,
            seed=seed,
            scales=scales,
            codes=codes.to(torch.uint8),
        )

    @property
    def bits(self) -> int:
        """Bits of every number."""
        return self.width

    @property
    def rank(self) -> int:
        """The full rank."""
        return min(matrix_shape(self.shape))

    @property
    def nbytes(self) -> int:
        """Scales and codes."""
        return 2 * len(self.scales) + packed_nbytes(len(self.codes), self.width)

    def measured(self, tensor: Tensor, total: float) -> Self:
        """Known since the quantisation: a rotation changes no norm."""
        return self

    def decode(self) -> Tensor:
        """Levels times scales, rotated back; the same bits on every machine."""
        levels = torch.from_numpy(_levels(self.width).numpy()[self.codes.numpy()])
        unit = 2.0 ** (math.frexp(float(self.scales.max()))[1] - 1)
        scaled = levels * spread(self.scales / unit, len(self.codes))
        return (rotate_back(scaled, self.seed) * unit).reshape(self.shape)

    def write(self, header: Writer, payload: Writer) -> None:
        """Append bits and seed to the header; scales, packed codes."""
        header.varint(self.width)
        header.varint(self.seed)
        payload.raw(scale_bytes(self.scales))
        payload.raw(pack_codes(self.codes.numpy(), self.width))

    @classmethod
    def read(cls, shape: Shape, energy: float, header: Reader, payload: Reader) -> Self:
        """Read scales and codes, as many as the shape says."""
        numel, width, seed = math.prod(shape), header.varint(), header.varint()
        if width not in ROTATED_WIDTHS:
            raise CodecError(f"{width} bits a rotated number are unknown")
        if not numel or seed >= _SEEDS:
            raise CodecError(f"{numel} numbers cannot be rotated by seed {seed}")
        scales = read_scales(payload.raw(2 * groups_of(numel)))
        codes = torch.from_numpy(unpack_codes(bytes(payload.raw(packed_nbytes(numel, width))), numel, width))
        return cls(shape, energy, width=width, seed=seed, scales=scales, codes=codes)


def _levels(bits: int) -> Tensor:
    positive = torch.tensor(_LEVELS[bits])
    return torch.cat([-positive.flip(0), positive])
