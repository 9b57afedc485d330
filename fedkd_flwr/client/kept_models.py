"""A node's models as they were after rounds that are, or may turn out to be, the run's best.

NODE/best/00000003.safetensors    after round 3; written once, whole or not at all
"""

from collections.abc import Collection
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fedkd_flwr import tensors
from fedkd_flwr.client.state import NodeState
from fedkd_flwr.errors import StateError
from fedkd_flwr.runtime.disk import flush

_PARTS = ("student", "private", "lent")


class KeptModels:
    """The rounds of one node in one run."""

    def __init__(self, node: Path) -> None:
        """Of the node whose state lies in this folder."""
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
        student, private, lent = (
            {name.removeprefix(f"{part}/"): t for name, t in named.items() if name.startswith(f"{part}/")}
            for part in _PARTS
        )
        return NodeState(int(about["trained"]), round, student, private, lent)

    def forget(self, but: Collection[int]) -> None:
        """Remove all rounds but these."""
        for path in self._folder.glob(f"{'[0-9]' * 8}*.safetensors"):
            if path not in {self._path(round) for round in but}:
                path.unlink()

    def _path(self, round: int) -> Path:
        return self._folder / f"{round:08d}.safetensors"
