"""The parameters of a pair by who holds them: those that clients share, and those that never leave a client."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn import Parameter

TEACHER = "teacher."
"""What begins the names of a teacher's tensors, also of shared ones, and of what it alone is to read."""

STUDENT = "student."
"""What begins the names of a student's private tensors."""


@dataclass(frozen=True)
class ParameterGroups:
    """The trainable parameters of a pair, and its statistics; each is in `shared` or in `private`.

    Attributes:
        shared: parameters that clients send and the server averages: the student's under its own names, and
            `teacher.NAME`.
        private: tensors that never leave the client, called `teacher.NAME`, `student.NAME` and `projections.NAME`;
            among them the statistics of batch normalisation, which are no parameters.
        tied: the shared parameters that lie in a teacher of which others are private, by the teacher's own names.
    """

    shared: Mapping[str, Parameter]
    private: Mapping[str, Tensor]
    tied: Mapping[str, Parameter]

    @property
    def everything(self) -> dict[str, Tensor]:
        """Shared and private tensors, by their names."""
        return {**self.shared, **self.private}

    @property
    def trainable(self) -> dict[str, Parameter]:
        """All parameters; shared ones are called `shared.NAME`."""
        private = {name: tensor for name, tensor in self.private.items() if isinstance(tensor, Parameter)}
        return {f"shared.{name}": parameter for name, parameter in self.shared.items()} | private
