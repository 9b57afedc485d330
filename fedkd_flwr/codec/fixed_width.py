"""Encodings with one width for all numbers: the paper's rule, and every number sent."""

from collections.abc import Mapping

from torch import Tensor

from fedkd_flwr.codec.decomposed_update import DecomposedUpdate
from fedkd_flwr.codec.energy import squared_norm
from fedkd_flwr.codec.rate_distortion import EMPTY, CodingMode
from fedkd_flwr.codec.shapes import may_shrink, sides
from fedkd_flwr.codec.tensors import Dense, Empty, EncodedTensor, Rotated
from fedkd_flwr.codec.update import EncodedUpdate

_VECTOR_BITS = 8  # at least, of what is no matrix


def at_energy(update: DecomposedUpdate, energy: float, bits: int) -> EncodedUpdate:
    """Encode each matrix at the smallest rank that keeps more than a share of its energy (FedKD, Eq 8).

    It is sent number by number where factors would not be smaller, as all vectors are.

    Args:
        update: decomposed.
        energy: the share to keep before quantisation, in (0, 1].
        bits: of each number; of vectors 8 or more.
    """
    ranks = update.spectra.ranks(energy)
    modes = {}
    for name, tensor in update.tensors.items():
        if not update.energies[name]:
            modes[name] = EMPTY
        elif name in ranks and ranks[name] * sides(tuple(tensor.shape)) < tensor.numel():
            modes[name] = CodingMode("factored", ((bits, ranks[name]),))
        else:
            modes[name] = CodingMode("dense", ((bits if name in ranks else max(bits, _VECTOR_BITS), 1),))
    return update.measured(update.encoded(modes))


def all_numbers(tensors: Mapping[str, Tensor], bits: int, rotated: bool) -> EncodedUpdate:
    """Encode every number of float32 tensors; zeros cost nothing but their name.

    Args:
        tensors: finite, on the CPU.
        bits: of each number; of vectors 8 or more.
        rotated: matrices are rotated first.
    """
    encoded: dict[str, EncodedTensor] = {}
    for name, tensor in tensors.items():
        is_matrix = may_shrink(tuple(tensor.shape))
        if not tensor.any():
            encoded[name] = Empty(tuple(tensor.shape), 1.0)
        elif rotated and is_matrix:
            encoded[name] = Rotated.of(tensor, bits)
        else:
            width = bits if is_matrix else max(bits, _VECTOR_BITS)
            total = squared_norm(tensor) if width < 32 else 1.0  # at 32 bits nothing is measured
            encoded[name] = Dense.of(tensor, width).measured(tensor, total)
    return EncodedUpdate.of(encoded)
