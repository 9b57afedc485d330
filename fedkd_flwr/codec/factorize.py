"""Truncated factorisation of matrices to an energy, by the Gram route (FedKD, Eq 8)."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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
    check_energy(energy)
    factors: list[Factors] = [_zero(matrix) for matrix in matrices]
    groups: dict[tuple[int, torch.device], list[int]] = defaultdict(list)
    for index, matrix in enumerate(matrices):
        if matrix.any():
            groups[min(matrix.shape), matrix.device].append(index)
    for indices in groups.values():
        for start in range(0, len(indices), _BATCH):
            batch = indices[start : start + _BATCH]
            grams = torch.stack([_gram(matrices[index]) for index in batch])
            decomposed = zip(batch, grams, *torch.linalg.eigh(grams.float()), strict=True)
            for index, gram, values, basis in decomposed:
                shares = _shares(values)
                if (shares - energy).abs().amin() < len(shares) * _FLOAT32_DOUBT:
                    values, basis = torch.linalg.eigh(gram)
                    shares = _shares(values)
                rank = min(int((shares <= energy).sum()) + 1, len(shares))
                factors[index] = _project(matrices[index], basis.flip(1)[:, :rank], float(shares[rank - 1]))
    return factors


def check_energy(energy: float) -> None:
    """Raise CodecError unless `energy` is in (0, 1]."""
    if not 0 < energy <= 1:
        raise CodecError(f"the energy to keep must be in (0, 1], got {energy}")


def _zero(matrix: Tensor) -> Factors:
    m, n = matrix.shape
    dtype = torch.promote_types(matrix.dtype, torch.float32)
    return Factors(matrix.new_zeros(m, 0, dtype=dtype), matrix.new_zeros(0, n, dtype=dtype), 1.0)


def _tall(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The matrix over its peak magnitude, turned so that no side is longer than the first; and the peak."""
    double = matrix.detach().double()
    peak = torch.linalg.vector_norm(double, torch.inf)
    return (double if double.shape[0] >= double.shape[1] else double.T) / peak, peak


def _gram(matrix: Tensor) -> Tensor:
    tall, _ = _tall(matrix)
    return tall.T @ tall


def _shares(values: Tensor) -> Tensor:
    """Energy shares [k] of the leading 1, 2, ... k of ascending eigenvalues [k]."""
    cumulative = values.double().flip(0).clamp(min=0).cumsum(0)
    return cumulative / cumulative[-1]


def _project(matrix: Tensor, basis: Tensor, energy: float) -> Factors:
    """Factor `matrix` through the orthonormal columns of `basis` [smaller side, r]."""
    tall, peak = _tall(matrix)
    basis = basis.double()
    projected = tall @ basis
    root = projected.norm(dim=0).sqrt()
    left = projected / root.clamp(min=torch.finfo(root.dtype).tiny) * peak.sqrt()
    right = (basis * root * peak.sqrt()).T
    if matrix.shape[0] < matrix.shape[1]:
        left, right = right.T, left.T
    dtype = torch.promote_types(matrix.dtype, torch.float32)
    return Factors(left.to(dtype).contiguous(), right.to(dtype).contiguous(), energy)
