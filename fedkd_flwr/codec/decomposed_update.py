"""One update on its way to bytes: decomposed once, each tensor encoded in as many forms as it takes."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fedkd_flwr.codec.decompositions import Decompositions
from fedkd_flwr.codec.energy import squared_norm
from fedkd_flwr.codec.quantization import row_peaks
from fedkd_flwr.codec.rate_distortion import CodingMode
from fedkd_flwr.codec.rate_model import TensorStatistics
from fedkd_flwr.codec.shapes import matrix_shape, may_shrink, scaled_rows, sides
from fedkd_flwr.codec.tensors import Dense, Empty, EncodedTensor, Factored
from fedkd_flwr.codec.update import EncodedUpdate


class DecomposedUpdate:
    """The tensors of one update, with their energies and spectra.

    Args:
        update: what is to be encoded, wherever it is; matrices on a GPU are decomposed there.
        tensors: the same in float32 on the CPU, finite.

    Attributes:
        tensors: as given.
        energies: squared norm of each.
        spectra: of the matrices that factors may shrink and that are not zero.
    """

    def __init__(self, update: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self.energies = {name: squared_norm(tensor) for name, tensor in tensors.items()}
        matrices = {
            name: update[name].detach().float() if update[name].is_cuda else tensor
            for name, tensor in tensors.items()
            if self.energies[name] and may_shrink(tuple(tensor.shape))
        }
        self.spectra = Decompositions({name: m.reshape(matrix_shape(tuple(m.shape))) for name, m in matrices.items()})
        self._crests: dict[str, float] = {}
        self._made: dict[tuple[str, CodingMode], EncodedTensor] = {}

    def statistics(self, name: str) -> TensorStatistics:
        """The statistics of a tensor, with as many singular values as are known by now."""
        tensor, spectrum = self.tensors[name], self.spectra.get(name)
        shape = tuple(tensor.shape)
        shares = np.zeros(0) if spectrum is None else spectrum.shares
        scales = scaled_rows(shape)[0]
        return TensorStatistics(tensor.numel(), sides(shape), self.energies[name], shares, scales, self._crest(name))

    def encoded(self, modes: Mapping[str, CodingMode]) -> dict[str, EncodedTensor]:
        """Encode each tensor in its mode, in the order of `modes`; what was made before is not made again."""
        missing = [(name, mode) for name, mode in modes.items() if (name, mode) not in self._made]
        self._made |= {(name, mode): self._without_factors(name, mode) for name, mode in missing if not mode.rank}
        factored = [(name, mode) for name, mode in missing if mode.rank]
        found = self.spectra.factors([(name, mode.rank) for name, mode in factored])
        for (name, mode), factors in zip(factored, found, strict=True):
            self._made[name, mode] = Factored.of(tuple(self.tensors[name].shape), factors, mode.widths)
        return {name: self._made[name, mode] for name, mode in modes.items()}

    def measured(self, encoded: Mapping[str, EncodedTensor]) -> EncodedUpdate:
        """The update of these tensors, with the energy that each really keeps."""
        return EncodedUpdate.of(
            {
                name: tensor.measured(self.tensors[name], self.energies[name]) if self.energies[name] else tensor
                for name, tensor in encoded.items()
            }
        )

    def _crest(self, name: str) -> float:
        """See `TensorStatistics`; 0 for zeros."""
        if name not in self._crests:
            tensor, energy = self.tensors[name], self.energies[name]
            rows = tensor.reshape(scaled_rows(tuple(tensor.shape)))
            peaks = float(torch.linalg.vector_norm(row_peaks(rows), dtype=torch.float64)) ** 2
            self._crests[name] = peaks * rows.shape[1] / energy if energy else 0.0
        return self._crests[name]

    def _without_factors(self, name: str, mode: CodingMode) -> EncodedTensor:
        tensor = self.tensors[name]
        if mode.kind == "empty":
            return Empty(tuple(tensor.shape), 0.0 if self.energies[name] else 1.0)
        return Dense.of(tensor, mode.widths[0][0])
