"""Truncated factorisation of matrices to an energy, by the Gram route (FedKD, Eq 8)."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedkd_flwr.codec.allocate import check_share
from fedkd_flwr.errors import CodecError

_BATCH = 16  # Gram matrices decomposed together: bounds the memory
_FLOAT32_DOUBT = 2.0**-26  # times k: above 4 times the measured error of energy shares from a float32 eigh of [k, k]


@dataclass(frozen=True, eq=False)
class Factors:
    """A matrix [m, n] as a product of rank r; each factor carries sqrt(sigma).

    Attributes:
        left: [m, r] = U sqrt(sigma).
        right: [r, n] = sqrt(sigma) V^T.
        energy: the share of the squared Frobenius norm that the product keeps.
    """

    left: Tensor
    right: Tensor
    energy: float

    @property
    def rank(self) -> int:
        """The number r of singular values kept."""
        return self.left.shape[1]

    def leading(self, rank: int) -> "Factors":
        """The first `rank` components."""
        if rank == self.rank:
            return self
        left, right = self.left[:, :rank], self.right[:rank]
        squares = self.left.double().square().sum(dim=0) * self.right.double().square().sum(dim=1)
        return Factors(left, right, self.energy * float(squares[:rank].sum() / squares.sum()))


def factorize(matrix: Tensor, energy: float = 0.95) -> Factors:
    """The best approximation of lowest rank that keeps more than `energy` of a matrix.

    With singular values s, largest first, the rank is the smallest K with

        sum_{k<=K} s_k^2 / sum_k s_k^2 > energy                                   (FedKD, Eq 8)

    and min(m, n) where no K exceeds it (energy = 1). It is 0 for a zero matrix and for no other.

    The squared singular values are the eigenvalues of the Gram matrix of the smaller side. It is computed in
    float64, which autocast and TF32 leave alone, and decomposed in float32, which is twice as fast, and again
    in float64 where `energy` is too near to the share of some K (that of the last is 1) for float32 to tell.

    Args:
        matrix: [m, n], any floating dtype, any device.
        energy: share of the squared Frobenius norm to keep, in (0, 1].

    Returns:
        Factors on the matrix's device; float64 for a float64 matrix, otherwise float32.

    Raises:
        CodecError: not a matrix of finite floats, or `energy` out of range.
    """
    if matrix.ndim != 2 or not matrix.is_floating_point():
        raise CodecError(f"factorize needs a float matrix, got {matrix.dtype} {list(matrix.shape)}")
    if not torch.isfinite(matrix).all():
        raise CodecError("factorize needs finite numbers, the matrix holds inf or nan")
    return factorize_all([matrix], energy)[0]


def factorize_all(matrices: Sequence[Tensor], energy: float) -> list[Factors]:
    """`factorize` each of many finite matrices; those of equal smaller side share one batched eigh."""
    check_share(energy)
    return [spectrum.to_energy(energy) for spectrum in spectra(matrices)]


@dataclass(eq=False)
class Spectrum:
    """A matrix [m, n] with eigenvalues and eigenvectors of its Gram matrix [k, k], k = min(m, n).

    Attributes:
        matrix: any floating dtype.
        values: float64 [r], squared singular values over the squared peak magnitude of the matrix, largest
            first: all (r = k), the leading ones, or none of a zero matrix.
        basis: [k, r], their singular vectors on the smaller side in columns.
        total: float64 scalar, the sum of all k values.
    """

    matrix: Tensor
    values: Tensor
    basis: Tensor
    total: Tensor

    def to_energy(self, energy: float) -> Factors:
        """Factors of the smallest rank that keeps more than `energy`, where the values go so far.

        All values are found again in float64 where float32 cannot tell the rank; of leading ones the rank is taken
        as they tell it.
        """
        if not len(self.values):
            return self.to_rank(0)
        shares = self.shares
        complete = len(shares) == min(self.matrix.shape)
        if complete and (shares - energy).abs().amin() < len(shares) * _FLOAT32_DOUBT:
            values, basis = torch.linalg.eigh(gram(self.matrix, torch.float64))
            self.values, self.basis = values.flip(0).clamp(min=0), basis.flip(1)
            self.total = self.values.sum()
            shares = self.shares
        return self.to_rank(min(int((shares <= energy).sum()) + 1, len(shares)))

    def to_rank(self, rank: int) -> Factors:
        """Factors of the leading `rank` singular values."""
        if rank == 0:
            m, n = self.matrix.shape
            dtype = torch.promote_types(self.matrix.dtype, torch.float32)
            kept = 0.0 if len(self.values) else 1.0
            return Factors(self.matrix.new_zeros(m, 0, dtype=dtype), self.matrix.new_zeros(0, n, dtype=dtype), kept)
        return _project(self.matrix, self.basis[:, :rank], float(self.shares[rank - 1]))

    @property
    def shares(self) -> Tensor:
        """float64 [r], the shares of the energy in the leading 1, 2, ... r."""
        return self.values.cumsum(0) / self.total


def spectra(matrices: Sequence[Tensor], grams: Sequence[Tensor] = ()) -> list[Spectrum]:
    """All values of each of many finite matrices, from a float32 eigh batched over equal sides; none of a zero matrix.

    Args:
        matrices: each [m, n].
        grams: what `gram` makes of each, where it is there already.
    """
    nothing = torch.zeros(0, dtype=torch.float64)
    found = [Spectrum(matrix, nothing, matrix.new_zeros(0, 0), nothing.sum()) for matrix in matrices]
    groups: dict[tuple[int, torch.device], list[int]] = defaultdict(list)
    for index, matrix in enumerate(matrices):
        if matrix.any():
            groups[min(matrix.shape), matrix.device].append(index)
    for indices in groups.values():
        for start in range(0, len(indices), _BATCH):
            batch = indices[start : start + _BATCH]
            stacked = torch.stack([grams[i] if grams else gram(matrices[i], torch.float64).float() for i in batch])
            for index, ascending, vectors in zip(batch, *torch.linalg.eigh(stacked), strict=True):
                values = ascending.double().flip(0).clamp(min=0)
                found[index] = Spectrum(matrices[index], values, vectors.flip(1), values.sum())
    return found


def gram(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """The Gram matrix [k, k] of the smaller side, over the squared peak magnitude, multiplied in `dtype`.

    On a CPU numpy multiplies: it sees that both sides are one matrix and calls syrk, at half the operations.
    """
    tall, _ = _tall(matrix, dtype)
    if tall.device.type == "cpu":
        array = tall.numpy()
        return torch.from_numpy(array.T @ array)
    with torch.autocast(matrix.device.type, enabled=False):
        return tall.T @ tall


def _tall(matrix: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The matrix over its peak magnitude in `dtype`, turned so that no side is longer than the first; and the peak."""
    wide = matrix.detach().to(torch.promote_types(matrix.dtype, torch.float32))
    low, high = wide.aminmax()
    peak = torch.maximum(high, -low)
    tall = wide.to(dtype) / peak.to(dtype)
    return tall if tall.shape[0] >= tall.shape[1] else tall.T, peak.double()


def _project(matrix: Tensor, basis: Tensor, energy: float) -> Factors:
    """Factor `matrix` through the orthonormal columns of `basis` [smaller side, r]; in float64 where that is fast."""
    dtype = torch.promote_types(matrix.dtype, torch.float32)
    with torch.autocast(matrix.device.type, enabled=False):
        tall, peak = _tall(matrix, torch.float64 if matrix.is_cuda else dtype)
        projected = tall @ basis.to(tall.dtype)
        root = projected.double().norm(dim=0).sqrt().to(tall.dtype)
        scale = peak.sqrt().to(tall.dtype)
        left = projected / root.clamp(min=torch.finfo(root.dtype).tiny) * scale
        right = (basis * (root * scale)).T
    if matrix.shape[0] < matrix.shape[1]:
        left, right = right.T, left.T
    return Factors(left.to(dtype).contiguous(), right.to(dtype).contiguous(), energy)
