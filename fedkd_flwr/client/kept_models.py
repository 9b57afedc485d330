"""A node's models as they were after rounds that are, or may turn out to be, the run's best.

NODE/best/00000003.safetensors    after round 3; written once, whole or not at all
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fedkd_flwr import tensors
from fedkd_flwr.client.state import NodeState
from fedkd_flwr.errors import StateError
from fedkd_flwr.messages import EvaluateRequest, TrainRequest, apply_refresh
from fedkd_flwr.runtime.disk import flush

_PARTS = ("student", "private", "tied")


class KeptModels:
    """The rounds of one node in one run."""

    def __init__(self, node: Path) -> None:
        """Open the rounds of the client whose state lies in the folder `node`."""
        self._folder = node / "best"

    def __contains__(self, round: int) -> bool:
        return self._path(round).exists()

    def save(self, round: int, state: NodeState) -> None:
        """Keep the models of a state, which is that of after `round`; what is kept of it stays.

        Raises:
            StateError: the disk refuses.
        """
        if round in self:
            return
        named = {f"{part}/{name}": t for part in _PARTS for name, t in getattr(state, part).items()}
        about = {"trained": str(state.round), "digest": tensors.digest(named)}
        fresh = self._path(round).with_suffix(".new")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_file(named, fresh, metadata=about)
            flush(fresh)
            fresh.replace(self._path(round))
            flush(self._folder)
        except (OSError, SafetensorError) as error:
            raise StateError(
                f"cannot write the models of round {round} to {self._folder}: {error}; the node's state is as before. "
                "Free space there, or set state-dir to a folder that can be written"
            ) from None

    def load(self, round: int) -> NodeState:
        """A state with these models, and nothing else, after `round`.

        Raises:
            StateError: there are none, or they are damaged.
        """
        path = self._path(round)
        try:
            with safe_open(path, "pt") as file:
                about = file.metadata()
                named = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if about["digest"] != tensors.digest(named):
                raise StateError(f"{path} is damaged: its digest differs")
        except (OSError, SafetensorError, KeyError) as error:
            raise StateError(f"{path} cannot be read: {error}") from None
        student, private, tied = (
            {name.removeprefix(f"{part}/"): t for name, t in named.items() if name.startswith(f"{part}/")}
            for part in _PARTS
        )
        return NodeState(int(about["trained"]), round, student, private, tied)

    def keep(self, state: NodeState, student: Mapping[str, Tensor], request: TrainRequest | EvaluateRequest) -> None:
        """Keep what a request says is the best round, and what the next one may say is; the rest goes.

        The server says only after a round has been scored whether it is the best: by then the client may have trained
        again.

        Args:
            state: the client's state before it handles the request.
            student: the shared tensors at the request's version.
            request: names the best round.

        Raises:
            StateError: the disk refuses.
        """
        wanted = {request.best}
        if isinstance(request, TrainRequest) and request.evaluate:
            wanted.add(request.round - 1)
        students = {state.version: state.student, request.refresh.version: student}
        if part := request.refresh.until(request.best, state.version):
            students.setdefault(request.best, apply_refresh(state.student, part))
        for round in wanted & students.keys():
            if 0 < state.round <= round:
                self.save(round, replace(state, student=students[round]))
        self.forget(but=wanted)

    def best(self, round: int, name: str) -> NodeState:
        """The state of a client, of this name, after the best round.

        Raises:
            StateError: the client has no models of that round, or they are damaged.
        """
        if round not in self:
            message = (
                f"node {name} has no models of round {round}, in which it had not trained yet or of which it lost "
                "its state: its newest ones are exported"
            )
            raise StateError(message, outside=message)
        return self.load(round)

    def forget(self, but: Collection[int]) -> None:
        """Remove all rounds but these."""
        for path in self._folder.glob(f"{'[0-9]' * 8}*.safetensors"):
            if path not in {self._path(round) for round in but}:
                path.unlink()

    def _path(self, round: int) -> Path:
        return self._folder / f"{round:08d}.safetensors"
