"""The leading singular values of a matrix by block Lanczos on its Gram matrix: as many as are asked for."""

import torch
from torch import Tensor

from fedkd_flwr.codec.spectrum import Spectrum, gram, spectra

_BLOCK = 24
_CONVERGED = 0.7  # of what may be dropped: all but this is captured, or the rank within the basis is not the smallest
_DIMENSIONS_A_RANK = 1.4  # captured for each singular value that is wanted, and two blocks more, for the same reason
_WORTH = 0.42  # of all dimensions; beyond it the full decomposition is faster
_NOISE = 2.0**-20  # of the total: what float32 may leave of a direction that is in the basis already
_SLANT = 2.0**-10  # of a block towards the basis: taken away, it leaves lengths within 2^-20


class LeadingSpectrum:
    """Grows an orthonormal basis of the leading eigenspace of C = G^T G, the Gram matrix of the smaller side.

    Each block is C times the last one, orthogonal to all before (block Lanczos with full reorthogonalisation,
    Golub and Underwood 1977; with a random start, Musco and Musco 2015). The captured energy trace(Q^T C Q) and the
    total, trace(C), are known exactly, so an energy is reached for certain; by Rayleigh and Ritz within the basis the
    rank is the smallest, or nearly. Once C leads to nothing new, as where the rank is low, the basis grows no
    more. All values are found instead where the basis would be too large to be faster.

    Args:
        matrix: [m, n], finite floats, not all zero, on the CPU.
    """

    def __init__(self, matrix: Tensor) -> None:
        self._matrix = matrix
        self._gram = gram(matrix, torch.float32)
        self._total = float(self._gram.diagonal().double().sum())
        most = int(_WORTH * len(self._gram)) + _BLOCK
        self._rows, self._images = (self._gram.new_empty(most, len(self._gram)) for _ in range(2))
        self._size = 0
        self._captured = 0.0
        self._ended = False
        self._all: Spectrum | None = None

    def until(self, energy: float) -> Spectrum:
        """The leading values that hold more than `energy` of all, and some more."""
        target = self._total * (1 - _CONVERGED * (1 - energy))
        gain = self._total
        while self._all is None and self._captured < target:
            # A block captures less than the one before: the gain of the last tells when the target is out of reach.
            blocks_left = (_WORTH * len(self._gram) - self._size) / _BLOCK
            if self._ended or blocks_left < 1 or self._captured + blocks_left * gain < target:
                return self._full()
            gain = self._grow()
        return self._all or self._ritz(self._size)

    def first(self, rank: int) -> Spectrum:
        """The leading `rank` values, or all where that is faster."""
        dimensions = _DIMENSIONS_A_RANK * rank + 2 * _BLOCK
        if self._all is None and dimensions > _WORTH * len(self._gram):
            return self._full()
        while self._all is None and self._size < dimensions:
            if self._ended:
                return self._full()
            self._grow()
        return self._all or self._ritz(rank)

    def _grow(self) -> float:
        """Add a block, or what of it is new; the energy that it captures is less than the last one's, as a rule."""
        rows, start = self._rows[: self._size], max(0, self._size - 2 * _BLOCK)
        with torch.autocast(self._gram.device.type, enabled=False):
            if self._size:
                block = self._images[self._size - _BLOCK : self._size]
            else:
                generator = torch.Generator(self._gram.device).manual_seed(0)
                block = torch.randn(_BLOCK, len(self._gram), generator=generator, device=self._gram.device) @ self._gram
            # In exact arithmetic C times the last block is orthogonal to all but the last two: these come first.
            near = rows[start:]
            block = _orthonormal(torch.addmm(block, block @ near.T, near, alpha=-1), _NOISE * self._total)
            overlap = block @ rows.T
            block = torch.addmm(block, overlap, rows, alpha=-1)
            # A second time where much was taken away: what is left is no longer of length 1 (twice is enough).
            if overlap.norm() > _SLANT:
                block = _orthonormal(block, 0.5)
            self._ended = len(block) < _BLOCK
            added = slice(self._size, self._size + len(block))
            self._rows[added] = block
            torch.mm(block, self._gram, out=self._images[added])
            gain = float((block * self._images[added]).sum(dtype=torch.float64))
        self._size += len(block)
        self._captured += gain
        return gain

    def _ritz(self, count: int) -> Spectrum:
        rows = self._rows[: self._size]
        with torch.autocast(self._gram.device.type, enabled=False):
            projected = rows @ self._images[: self._size].T
            values, vectors = torch.linalg.eigh((projected + projected.T) / 2)
            leading = vectors.flip(1)[:, :count]
            descending = values.double().flip(0).clamp(min=0)[:count].numpy()
            return Spectrum(self._matrix, descending, (leading.T @ rows).T, self._total)

    def _full(self) -> Spectrum:
        if self._all is None:
            self._all = spectra([self._matrix], [self._gram])[0]
        return self._all


def _orthonormal(block: Tensor, least: float) -> Tensor:
    """An orthonormal basis of rows, without those of which less than `least` is in no row before."""
    columns, triangle = torch.linalg.qr(block.T)
    rows: Tensor = columns.T[triangle.diagonal().abs() > least]
    return rows
