"""Error feedback: what an encoding drops is added to the next update."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fedkd_flwr.codec.host import to_host
from fedkd_flwr.codec.update import EncodedUpdate
from fedkd_flwr.codec.update_codec import UpdateCodec
from fedkd_flwr.errors import CodecError


@dataclass(frozen=True)
class ErrorFeedback:
    """Encodes updates so that nothing is lost for good, only late (Seide et al. 2014, Karimireddy et al. 2019).

    It has no state: the caller keeps the residual next to what the updates are applied to. One that could not send
    keeps the residual of its last sending.

    Args:
        codec: what encodes.
    """

    codec: UpdateCodec

    def encode(
        self, update: Mapping[str, Tensor], residual: Mapping[str, Tensor]
    ) -> tuple[EncodedUpdate, dict[str, Tensor]]:
        """Encode the update with what earlier encodings have dropped.

        Args:
            update: named tensors of any floating dtypes, on any devices.
            residual: what the last call returned; {} at the start.

        Returns:
            The encoded sum, and the new residual, float32 on the CPU: decoded + new residual == update + residual,
            to the rounding of float32.

        Raises:
            CodecError: `UpdateCodec.encode` raises it, or the residual is not of these tensors.
        """
        if residual and {n: t.shape for n, t in residual.items()} != {n: t.shape for n, t in update.items()}:
            raise CodecError("the residual has other tensors or shapes than the update: start with {}")
        owed = {
            name: tensor.detach().float() + residual[name].to(tensor.device, non_blocking=True) if residual else tensor
            for name, tensor in update.items()
        }
        encoded = self.codec.encode(owed)
        decoded = encoded.decode()
        on_cpu = to_host([tensor.detach().float() for tensor in owed.values()])
        return encoded, {name: tensor - decoded[name] for name, tensor in zip(owed, on_cpu, strict=True)}
