"""The codec of the paper: each matrix of an update becomes factors that keep a share of its energy."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fedkd_flwr.codec.encoded import EncodedUpdate
from fedkd_flwr.codec.factorize import Factors, check_energy, factorize_all
from fedkd_flwr.codec.records import Dense, Empty, Factored, Record, finite_float32, matrix_shape


@dataclass(frozen=True)
class UpdateCodec:
    """Dynamic low-rank approximation of an update (FedKD, Eqs 8-9).

    Matrices, and tensors of more dimensions flattened to [out, rest], become factors of the smallest rank K
    that keeps more than `energy` (see `factorize`), where those are smaller: K (out + rest) < out rest.
    All else, vectors included, is sent in float32 as it is; zeros cost nothing but their name.

    Args:
        energy: T(t), the share of each matrix's squared Frobenius norm to keep, in (0, 1]; 1 sends all dense.

    Raises:
        CodecError: `energy` is out of range.
    """

    energy: float = 0.95

    def __post_init__(self) -> None:
        check_energy(self.energy)

    def encode(self, update: Mapping[str, Tensor]) -> EncodedUpdate:
        """Encode named tensors of any shapes, floating dtypes and devices; each is worked on where it is.

        Raises:
            CodecError: names a tensor that is not floating point, or holds what float32 cannot hold.
        """
        tensors = {name: finite_float32(name, tensor) for name, tensor in update.items()}
        matrices = {
            name: tensor.reshape(matrix_shape(tuple(tensor.shape)))
            for name, tensor in tensors.items()
            if _may_shrink(tensor)
        }
        factors = dict(zip(matrices, factorize_all(list(matrices.values()), self.energy), strict=True))
        return EncodedUpdate.of({name: _record(tensor, factors.get(name)) for name, tensor in tensors.items()})

    def decode(self, encoded: EncodedUpdate) -> dict[str, Tensor]:
        """The tensors, float32 on the CPU; see `EncodedUpdate.decode`."""
        return encoded.decode()


def _may_shrink(tensor: Tensor) -> bool:
    return tensor.numel() > sum(matrix_shape(tuple(tensor.shape)))


def _record(tensor: Tensor, factors: Factors | None) -> Record:
    shape = tuple(tensor.shape)
    if not tensor.any():
        return Empty(shape)
    if factors is not None and factors.rank * sum(matrix_shape(shape)) < tensor.numel():
        return Factored.of(shape, factors)
    return Dense.of(tensor)
