"""The shared parameters at the server: their version, and what brings a client from an older version to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from fedkd_flwr import tensors
from fedkd_flwr.codec import EncodedUpdate, ErrorFeedback, UpdateCodec
from fedkd_flwr.distillation import TEACHER
from fedkd_flwr.messages import Refresh, apply_refresh


@dataclass
class GlobalStudent:
    """The student after `version` updates, with the newest updates as they were sent.

    `tensors`, float32 on the CPU, are the shared parameters: its own and those of a teacher.
    `residual` is what the encodings of the mean have dropped so far.
    `updates` ends with the one that led to `version`. Old ones are dropped once the rest is as large as a
    snapshot: no node is ever sent more bytes than that.
    """

    tensors: Mapping[str, Tensor]
    version: int = 0
    updates: list[bytes] = field(default_factory=list)
    residual: Mapping[str, Tensor] = field(default_factory=dict)

    def advance(
        self,
        mean: Mapping[str, Tensor],
        codec: UpdateCodec,
        feedback: bool = False,
    ) -> None:
        """Encode the mean update and apply exactly what is sent, as every node will.

        Args:
            mean: of the updates.
            codec: what encodes.
            feedback: what earlier encodings dropped is added before, and what this one drops is kept.
        """
        if feedback:
            encoded, self.residual = ErrorFeedback(codec).encode(mean, self.residual)
        else:
            encoded = codec.encode(mean)
        self.tensors = apply_refresh(self.tensors, Refresh.of("updates", self.version + 1, encoded.to_bytes()))
        self.version += 1
        self.updates.append(encoded.to_bytes())
        while self.updates and sum(map(len, self.updates)) >= self.snapshot_bytes:
            self.updates.pop(0)

    def refresh_from(self, held: int | None, best: Mapping[str, Tensor] | None = None) -> Refresh:
        """The cheapest way from version `held` (None: unknown) to the current one.

        Args:
            held: by the node.
            best: the student of a version between, which the node must have, too; updates lead over it.
        """
        if held == self.version:
            return Refresh.of("nothing", self.version)
        missing = self.version - held if held is not None else 0
        if 0 < missing <= len(self.updates):
            return Refresh.of("updates", self.version, *self.updates[-missing:])
        students = [self.tensors] if best is None else [best, self.tensors]
        return Refresh.of("snapshot", self.version, *(EncodedUpdate.dense(student).to_bytes() for student in students))

    @property
    def digest(self) -> str:
        """SHA-256 of the tensors."""
        return tensors.digest(self.tensors)

    @property
    def snapshot_bytes(self) -> int:
        """Bytes of the tensors as float32."""
        return tensors.dense_bytes(self.tensors)

    @property
    def student_bytes(self) -> int:
        """Bytes of the student alone, without the shared layers of a teacher."""
        return tensors.dense_bytes({n: t for n, t in self.tensors.items() if not n.startswith(TEACHER)})
