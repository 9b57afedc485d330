"""Truncated factorisation of matrices to an energy (FedKD, Eq 8), by their Gram matrices."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedkd_flwr.codec.energy import check_share
from fedkd_flwr.codec.host import on_host, to_host
from fedkd_flwr.codec.rate_model import Floats
from fedkd_flwr.errors import CodecError

_BATCH = 16  # Gram matrices decomposed together: bounds the memory
_FLOAT32_DOUBT = 2.0**-26  # times k: above 4 times the measured error of energy shares from a float32 eigh of [k, k]


@dataclass(frozen=True, eq=False)
class Factors:
    """A matrix [m, n] as a product of rank r; each factor carries sqrt(sigma).

    Attributes:
        left: [m, r] = U sqrt(sigma), on the CPU.
        right: [r, n] = sqrt(sigma) V^T, on the CPU.
        energy: the share of the squared Frobenius norm that the product keeps.
    """

    left: Tensor
    right: Tensor
    energy: float

    @property
    def rank(self) -> int:
        """The number r of singular values kept."""
        return self.left.shape[1]


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
        Factors; float64 for a float64 matrix, otherwise float32.

    Raises:
        CodecError: not a matrix of finite floats, or `energy` out of range.
    """
    if matrix.ndim != 2 or not matrix.is_floating_point():
        raise CodecError(f"factorize needs a float matrix, got {matrix.dtype} {list(matrix.shape)}")
    if not torch.isfinite(matrix).all():
        raise CodecError("factorize needs finite numbers, the matrix holds inf or nan")
    check_share(energy)
    (spectrum,) = resolved(spectra([matrix]), energy)
    (factors,) = factors_at([(spectrum, spectrum.rank(energy))])
    return factors


class Spectrum:
    """A matrix [m, n] with eigenvalues and eigenvectors of its Gram matrix [k, k], k = min(m, n).

    Args:
        matrix: any floating dtype.
        values: float64 [r], squared singular values over the squared peak magnitude of the matrix, largest
            first: all (r = k), the leading ones, or none of a zero matrix.
        basis: [k, r], their singular vectors on the smaller side in columns.
        total: the sum of all k values.
    """

    def __init__(self, matrix: Tensor, values: Floats, basis: Tensor, total: float) -> None:
        self.matrix, self.values, self.basis, self.total = matrix, values, basis, total
        dtype = torch.promote_types(matrix.dtype, torch.float32)
        self._left, self._right = (torch.empty(0, side, dtype=dtype) for side in matrix.shape)

    @property
    def shares(self) -> Floats:
        """float64 [r], the shares of the energy in the leading 1, 2, ... r."""
        return np.cumsum(self.values) / self.total

    def resolves(self, energy: float) -> bool:
        """Tell whether float32 can say the rank for `energy`; where leading values are known, whether they hold it."""
        known = len(self.values)
        if not known:
            return True
        distances = self.shares - energy
        nearest = distances[-1] if known < min(self.matrix.shape) else np.abs(distances).min()
        return bool(nearest >= known * _FLOAT32_DOUBT)

    def rank(self, energy: float) -> int:
        """The smallest that keeps more than `energy`, where the values go so far."""
        return min(int(np.searchsorted(self.shares, energy, side="right")) + 1, len(self.values))

    @property
    def added(self) -> int:
        """Components of which factors are there."""
        return len(self._left)

    def missing(self, rank: int) -> tuple[Tensor, Tensor]:
        """Rows [r, m] and [r, n], where the matrix is, of the components up to `rank` that are not there yet."""
        return _project(self.matrix, self.basis[:, self.added : rank])

    def add(self, left: Tensor, right: Tensor) -> None:
        """Keep what `missing` gave, on the CPU."""
        if self.added:
            left, right = torch.cat([self._left, left]), torch.cat([self._right, right])
        self._left, self._right = left, right

    def factors(self, rank: int) -> Factors:
        """The factors of the leading `rank` components, all of them added."""
        kept = float(self.shares[rank - 1]) if rank else float(not len(self.values))
        return Factors(self._left[:rank].T, self._right[:rank], kept)


def factors_at(wanted: Sequence[tuple[Spectrum, int]]) -> list[Factors]:
    """Factors of the leading components of each spectrum, as many as its rank; what was found is not found again."""
    growing = [(spectrum, rank) for spectrum, rank in wanted if rank > spectrum.added]
    rows = to_host([side for spectrum, rank in growing for side in spectrum.missing(rank)])
    for (spectrum, _), left, right in zip(growing, rows[::2], rows[1::2], strict=True):
        spectrum.add(left, right)
    return [spectrum.factors(rank) for spectrum, rank in wanted]


def resolved(found: Sequence[Spectrum], energy: float) -> list[Spectrum]:
    """The same spectra, but all values in float64 where float32 cannot tell the rank for `energy`."""
    doubtful = [index for index, spectrum in enumerate(found) if not spectrum.resolves(energy)]
    exact = dict(zip(doubtful, spectra([found[index].matrix for index in doubtful], dtype=torch.float64), strict=True))
    return [exact.get(index, spectrum) for index, spectrum in enumerate(found)]


def spectra(
    matrices: Sequence[Tensor], grams: Sequence[Tensor] = (), dtype: torch.dtype = torch.float32
) -> list[Spectrum]:
    """Find all values of each of many finite matrices, by an eigh batched over equal sides; none of a zero matrix.

    Args:
        matrices: each [m, n].
        grams: what `gram` makes of each, where it is there already.
        dtype: in which Gram matrices are decomposed.
    """
    groups: dict[tuple[int, torch.device], list[int]] = defaultdict(list)
    for index, matrix in enumerate(matrices):
        if matrix.numel():
            groups[min(matrix.shape), matrix.device].append(index)
    ascending: dict[int, Tensor] = {}
    bases: dict[int, Tensor] = {}
    for indices in groups.values():
        for start in range(0, len(indices), _BATCH):
            batch = indices[start : start + _BATCH]
            stacked = torch.stack([grams[i] if grams else gram(matrices[i], torch.float64).to(dtype) for i in batch])
            values, vectors = torch.linalg.eigh(stacked)
            ascending |= zip(batch, values, strict=True)
            bases |= zip(batch, vectors.flip(2), strict=True)
    known = dict(zip(ascending, on_host(list(ascending.values())), strict=True))
    found = []
    for index, matrix in enumerate(matrices):
        descending = known.get(index, np.zeros(0))[::-1].clip(min=0)
        total = float(descending.sum())
        basis = bases.get(index, matrix.new_zeros(0, 0))
        found.append(Spectrum(matrix, descending if total else descending[:0], basis, total))
    return found


def gram(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """The Gram matrix [k, k] of the smaller side, over the squared peak magnitude, multiplied in `dtype`.

    On a CPU numpy multiplies: it sees that both sides are one matrix and calls syrk, at half the operations.
    """
    tall = _tall(matrix, dtype)
    if tall.device.type == "cpu":
        array = tall.numpy()
        return torch.from_numpy(array.T @ array)
    with torch.autocast(matrix.device.type, enabled=False):
        return tall.T @ tall


def _tall(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """The matrix over its peak magnitude in `dtype`, turned so that no side is longer than the first."""
    wide = matrix.detach().to(torch.promote_types(matrix.dtype, torch.float32))
    peak = _peak(wide)
    return _upright(wide.to(dtype) / torch.where(peak > 0, peak, 1).to(dtype))


def _upright(matrix: Tensor) -> Tensor:
    return matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T


def _peak(matrix: Tensor) -> Tensor:
    low, high = matrix.aminmax()
    return torch.maximum(high, -low)


def _project(matrix: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [r, m] and [r, n] of the factors of `matrix` through the orthonormal columns of `basis` [smaller side, r].

    The product is in float64 where that is fast. Divided by the root of the peak, it is in the range of its dtype,
    whatever the magnitude of the matrix. The longer side comes first in it: a product of a few rows is split among
    threads in a way that shows in its last bits.
    """
    dtype = torch.promote_types(matrix.dtype, torch.float32)
    with torch.autocast(matrix.device.type, enabled=False):
        wide = matrix.detach().to(torch.float64 if matrix.is_cuda else dtype)
        rows, scale = basis.T.to(wide.dtype), _peak(wide).sqrt()
        longer = (_upright(wide) @ (rows / scale).T).T.contiguous()
        norms = torch.linalg.vector_norm(longer, dim=1, keepdim=True, dtype=torch.float64)
        root = (norms / scale).sqrt().to(wide.dtype)
        longer = longer.div_(root.clamp(min=torch.finfo(root.dtype).tiny)).to(dtype)
        shorter = (rows * (root * scale)).to(dtype)
    return (longer, shorter) if matrix.shape[0] >= matrix.shape[1] else (shorter, longer)
