"""The codec: an update of named tensors becomes factors, numbers or nothing, as its allocation says."""

from collections.abc import Mapping

from torch import Tensor

from fedkd_flwr.codec.allocation import Allocation, Budget, Energy, Uniform
from fedkd_flwr.codec.budget import within_budget
from fedkd_flwr.codec.decomposed_update import DecomposedUpdate
from fedkd_flwr.codec.fixed_width import all_numbers, at_energy
from fedkd_flwr.codec.host import finite_float32
from fedkd_flwr.codec.quantization import WIDTHS
from fedkd_flwr.codec.tensors import ROTATED_WIDTHS
from fedkd_flwr.codec.update import EncodedUpdate
from fedkd_flwr.errors import CodecError

_MIXED = (3, 4, 5, 6, 8)


class UpdateCodec:
    """Encodes updates; the paper's codec is `UpdateCodec(energy=T)`, a byte budget `UpdateCodec(allocation=Budget(n))`.

    Matrices, and tensors of more dimensions flattened to [out, rest], become factors of low rank where those
    are smaller; all else is sent number by number, and zeros cost nothing but their name.

    - `Energy(T)`: each matrix gets the smallest rank that keeps more than T of it before quantisation (FedKD, Eqs
      8-9); vectors are sent whole, in 8 bits or more.
    - `Budget(nbytes)`: ranks and widths are shared out over all tensors by energy per byte; what is not worth its
      bytes is not sent.
    - `Uniform()`: every number in the same bits (FedPAQ); vectors in 8 or more. `Uniform(rotated=True)`: matrices
      rotated, at 1 to 4 bits (DRIVE, EDEN).

    Args:
        energy: short for allocation=Energy(energy).
        allocation: who gets how many bytes.
        bits: of each number that is sent: 32, 16, 8, 6, 5, 4 or 3; 4, 3, 2 or 1 where all are rotated. None: 32 under
            Energy and Uniform, 4 rotated; otherwise each component of a matrix as many as pay.

    Raises:
        CodecError: an argument is out of range.
    """

    def __init__(self, energy: float = 0.95, *, allocation: Allocation | None = None, bits: int | None = None) -> None:
        self.allocation = Energy(energy) if allocation is None else allocation
        allowed = ROTATED_WIDTHS if self.allocation == Uniform(rotated=True) else WIDTHS
        if bits is not None and bits not in allowed:
            raise CodecError(f"bits must be one of {', '.join(map(str, allowed))}, got {bits}")
        self.bits = bits

    def encode(self, update: Mapping[str, Tensor]) -> EncodedUpdate:
        """Encode named tensors of any shapes, floating dtypes and devices; each is decomposed where it is.

        Args:
            update: the tensors.

        Raises:
            CodecError: names a tensor that is not floating point, or holds what float32 cannot hold; a
                budget is too small for the names and shapes alone.
        """
        tensors = finite_float32(update)
        if isinstance(self.allocation, Uniform):
            rotated = self.allocation.rotated
            return all_numbers(tensors, self.bits or (4 if rotated else 32), rotated)
        if not isinstance(self.allocation, Energy | Budget):
            return self.allocation.encode(tensors, self.bits)
        decomposed = DecomposedUpdate(update, tensors)
        if isinstance(self.allocation, Energy):
            return at_energy(decomposed, self.allocation.share, self.bits or 32)
        return within_budget(decomposed, self.allocation.nbytes, _MIXED if self.bits is None else (self.bits,))

    def decode(self, encoded: EncodedUpdate) -> dict[str, Tensor]:
        """The tensors, float32 on the CPU; see `EncodedUpdate.decode`."""
        return encoded.decode()
