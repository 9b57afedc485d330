"""The spectra of the matrices of one update, as far as they have been asked for."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from fedkd_flwr.codec.krylov import LeadingSpectrum
from fedkd_flwr.codec.spectrum import Factors, Spectrum, factors_at, resolved, spectra

_LARGE = 256  # smaller side from which on leading singular values come faster than all
_LEAST_RANK = 32
_GROWTH = 1.5


class Decompositions:
    """Spectra by name: all values of small matrices from the start, the leading ones of large ones on demand.

    On a GPU all matrices count as small: they are decomposed in one batch.

    Args:
        matrices: each [m, n], finite, not all zero, where it shall be decomposed.
    """

    def __init__(self, matrices: Mapping[str, Tensor]) -> None:
        self._large = {name: m for name, m in matrices.items() if min(m.shape) >= _LARGE and not m.is_cuda}
        self._leading: dict[str, LeadingSpectrum] = {}
        small = {name: matrix for name, matrix in matrices.items() if name not in self._large}
        self._spectra = dict(zip(small, spectra(list(small.values())), strict=True))

    def get(self, name: str) -> Spectrum | None:
        """The values known of a matrix; None: nothing is known, or it is no matrix."""
        return self._spectra.get(name)

    def ranks(self, energy: float) -> dict[str, int]:
        """The smallest rank of each matrix that keeps more than the share `energy` of it; finds values enough."""
        for name in self._large:
            self._spectra[name] = self._lanczos(name).until(energy)
        self._spectra = dict(zip(self._spectra, resolved(list(self._spectra.values()), energy), strict=True))
        return {name: spectrum.rank(energy) for name, spectrum in self._spectra.items()}

    def factors(self, wanted: Sequence[tuple[str, int]]) -> list[Factors]:
        """Factors of matrices at known ranks: (name, rank) of each; a GPU is waited for once."""
        return factors_at([(self._spectra[name], rank) for name, rank in wanted])

    @property
    def large_sides(self) -> int:
        """Numbers in one component of every large matrix together."""
        return sum(sum(matrix.shape) for matrix in self._large.values())

    def find_leading(self, rank: int) -> None:
        """Find the `rank` leading values of each large matrix, or somewhat more."""
        for name in self._large:
            self._spectra[name] = self._lanczos(name).first(max(_LEAST_RANK, rank))

    def may_find_more(self, name: str, rank: int) -> bool:
        """Tell whether `rank` components are all that are known of a matrix, but not all that it has."""
        if name not in self._large:
            return False
        known = len(self._spectra[name].values)
        return known <= rank and 0 < known < min(self._large[name].shape)

    def find_more(self, name: str) -> None:
        """Find half as many values of a large matrix again."""
        known = len(self._spectra[name].values)
        self._spectra[name] = self._lanczos(name).first(max(_LEAST_RANK, int(_GROWTH * known)))

    def _lanczos(self, name: str) -> LeadingSpectrum:
        if name not in self._leading:
            self._leading[name] = LeadingSpectrum(self._large[name])
        return self._leading[name]
