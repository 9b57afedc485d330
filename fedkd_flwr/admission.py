"""What a node must have in common with the run, and what it is sent where it differs."""

from logging import getLogger

from fedkd_flwr import tensors
from fedkd_flwr.config import RunConfig
from fedkd_flwr.errors import ProtocolError
from fedkd_flwr.global_student import GlobalStudent
from fedkd_flwr.protocol import JoinReply
from fedkd_flwr.run_folder import RunState
from fedkd_flwr.server_model import ServerModel

log = getLogger("flwr")


class Admission:
    """Holds newcomers against the run; the first one decides the labels where the config does not."""

    def __init__(self, config: RunConfig, state: RunState) -> None:
        self._config = config
        self._state = state
        self._server_model: ServerModel | None = None

    @property
    def model(self) -> ServerModel:
        """The student as a model, from the first newcomer on."""
        if self._server_model is None:
            self._server_model = ServerModel(self._config, self._state.labels)
        return self._server_model

    def __call__(self, info: JoinReply) -> int | None:
        """The version that a newcomer really holds; None: it needs a snapshot.

        Raises:
            ProtocolError: it does not belong to this run; says why.
        """
        state = self._state
        state.labels = state.labels or self._config.label_names or info.labels
        if info.labels != state.labels:
            raise ProtocolError(
                f"{info.node} has the labels {', '.join(info.labels)}; this run has {', '.join(state.labels)}: "
                "set the run-config key 'labels' to all labels, in one order"
            )
        state.student = state.student or GlobalStudent(self.model.initial)
        if info.frozen_digest != self.model.frozen_digest:
            raise ProtocolError(
                f"{info.node} has another student checkpoint: its frozen tensors (embeddings) differ from the "
                "server's; use the same files everywhere"
            )
        state.teacher_bytes = state.teacher_bytes or info.teacher_bytes
        if state.partitions is None:
            state.partitions = info.partitions
        if info.partitions not in (0, state.partitions):
            raise ProtocolError(
                f"{info.node} is one of {info.partitions} nodes, this run was started with {state.partitions}: "
                "its data would be other data; start as many nodes as before"
            )
        if info.node in state.taken and info.round == 0:
            log.warning("fedkd: %s has no state of this run: its teacher starts afresh", info.node)
        known = {0: tensors.digest(self.model.initial), state.student.version: state.student.digest}
        if info.version > state.student.version or known.get(info.version, info.digest) != info.digest:
            log.warning(
                "fedkd: %s holds a student (version %d, digest %.12s) that differs from the server's "
                "(version %d): it gets a snapshot",
                info.node,
                info.version,
                info.digest,
                state.student.version,
            )
            return None
        return info.version
