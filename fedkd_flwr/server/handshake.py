"""What a node must have in common with the run, and what it is sent where it differs."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from logging import getLogger
from typing import TypeVar

from fedkd_flwr import tensors
from fedkd_flwr.codec.settings import require_budget
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.data.label_names import alike
from fedkd_flwr.errors import ProtocolError
from fedkd_flwr.messages import JoinReply
from fedkd_flwr.server.aggregation import weights
from fedkd_flwr.server.global_model import ServerModel
from fedkd_flwr.server.global_student import GlobalStudent
from fedkd_flwr.server.run_folder import RunState
from fedkd_flwr.tasks.label_priors import mean_shares

log = getLogger("flwr")

_Claim = TypeVar("_Claim", bound=Hashable)


class Admission:
    """Holds newcomers against the run; the first ones decide what their labels leave to be shared."""

    def __init__(self, config: RunConfig, state: RunState) -> None:
        self._config = config
        self._state = state
        self._server_model: ServerModel | None = None

    @property
    def model(self) -> ServerModel:
        """The student as a model, from the first newcomers on."""
        if self._server_model is None:
            self._server_model = ServerModel(self._config, self._state.labels, self._state.shared_head)
        return self._server_model

    def __call__(self, info: JoinReply, newcomers: Sequence[JoinReply]) -> int | None:
        """The version that a newcomer, one of these, really holds; None: it needs a snapshot.

        Raises:
            ProtocolError: it does not belong to this run; says why.
            ConfigError: the run's budget is too small for any update.
        """
        if self._state.student is None:
            self._decide_head(newcomers)
            self._average_shares(newcomers)
        self._require_labels(info)
        student = self._require_student(info)
        self._require_partitions(info, newcomers)
        self._remember(info)
        return self._version_held(info, student)

    def _require_labels(self, info: JoinReply) -> None:
        """Whether a newcomer has the run's labels, where a head is shared."""
        state = self._state
        if state.shared_head and info.labels != state.labels:
            raise ProtocolError(
                f"{info.node} has the labels {', '.join(info.labels)}; this run has {', '.join(state.labels)}: "
                "set the run-config key 'data.labels' to all labels, in one order, or model.shared-head to 'never' "
                "and start anew"
            )
        if len(info.label_shares) not in (0, len(info.labels)):
            raise ProtocolError(f"{info.node} gives {len(info.label_shares)} label shares, expected {len(info.labels)}")

    def _require_student(self, info: JoinReply) -> GlobalStudent:
        """The run's student, which is built for the first newcomer; another checkpoint is refused."""
        state = self._state
        student = state.student = state.student or GlobalStudent(self.model.initial)
        require_budget(self._config, student.tensors)
        if info.frozen_digest != self.model.frozen_digest:
            raise ProtocolError(
                f"{info.node} has another student checkpoint: its frozen tensors (embeddings, and what is under "
                "adapters) differ from the server's; use the same files everywhere"
            )
        return student

    def _require_partitions(self, info: JoinReply, newcomers: Sequence[JoinReply]) -> None:
        """Whether a simulated newcomer is one of as many nodes as the run was started with."""
        state = self._state
        if state.partitions is None:
            state.partitions = _most_common(newcomer.partitions for newcomer in newcomers)
        if info.partitions not in (0, state.partitions):
            raise ProtocolError(
                f"{info.node} is one of {info.partitions} nodes, this run was started with {state.partitions}: "
                "its data would be other data; start as many nodes as before"
            )

    def _remember(self, info: JoinReply) -> None:
        """Keep what the run's history says of a node."""
        state = self._state
        state.teacher_bytes = state.teacher_bytes or info.teacher_bytes
        if info.node in state.taken and info.round == 0:
            log.warning("fedkd: %s has no state of this run: its teacher starts afresh", info.node)
        state.history.data[info.node] = {
            "title": info.title,
            "train-examples": info.train_examples,
            "device": info.device,
            **info.data.model_dump(),
        }

    def _version_held(self, info: JoinReply, student: GlobalStudent) -> int | None:
        """The version that a newcomer says it holds, where its digest is that of the server's; else None."""
        known = {0: tensors.digest(self.model.initial), student.version: student.digest}
        digest = info.digest if self._state.shared_head else info.encoder_digest
        if info.version > student.version or known.get(info.version, digest) != digest:
            log.warning(
                "fedkd: %s holds a student (version %d, digest %.12s) that differs from the server's "
                "(version %d): it gets a snapshot",
                info.node,
                info.version,
                digest,
                student.version,
            )
            return None
        return info.version

    def _decide_head(self, newcomers: Sequence[JoinReply]) -> None:
        """Whether the student's head is shared; labels are the run's where it is."""
        state, setting = self._state, self._config.model.shared_head
        labels = self._config.data.label_names or _most_common(newcomer.labels for newcomer in newcomers)
        state.shared_head = setting == "always" or (setting == "auto" and all(n.labels == labels for n in newcomers))
        state.labels = labels if state.shared_head else ()
        if setting == "auto" and not state.shared_head:
            names = {label for newcomer in newcomers for label in newcomer.labels}
            close = sorted({kind for one in names for other in names if (kind := alike(one, other))})
            log.warning(
                "fedkd: labels differ%s, so each node keeps a head of its own and the encoder alone is shared (%s); to "
                "share the head, set the run-config key 'data.labels' to all labels",
                f" (some only {' or '.join(close)})" if close else "",
                "; ".join(f"{newcomer.node}: {', '.join(newcomer.labels)}" for newcomer in newcomers),
            )

    def _average_shares(self, newcomers: Sequence[JoinReply]) -> None:
        """How frequent labels are at all these nodes, where a head is shared and they have said it."""
        state = self._state
        found = [
            newcomer
            for newcomer in newcomers
            if newcomer.labels == state.labels and len(newcomer.label_shares) == len(state.labels)
        ]
        if state.shared_head and found:
            held = weights(self._config, [newcomer.train_examples for newcomer in found])
            state.label_shares = mean_shares([(w, n.label_shares) for w, n in zip(held, found, strict=True)])


def _most_common(claims: Iterable[_Claim]) -> _Claim:
    """What most nodes say, the first of them where as many say something else."""
    ((claim, _),) = Counter(claims).most_common(1)
    return claim
