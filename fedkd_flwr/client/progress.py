"""Where a client stands: what it holds of a run, against what the server says that it has."""

from collections.abc import Mapping

from torch import Tensor

from fedkd_flwr.client.state import NodeState, NodeStore
from fedkd_flwr.codec import EncodedUpdate
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import ProtocolError, StateError
from fedkd_flwr.messages import Refresh, TrainReply, TrainRequest, apply_refresh
from fedkd_flwr.models.build import PairModels
from fedkd_flwr.records import unpack


def initial_state(models: PairModels) -> NodeState:
    """The state before any training."""
    return NodeState(0, 0, models.initial_shared, models.initial_private, teacher=models.teacher_digest)


def stored_state(store: NodeStore, config: RunConfig, name: str, models: PairModels) -> NodeState | None:
    """The state that a client has on its disk; None: it has none.

    Raises:
        StateError: it is damaged, of another teacher, or of a run that was told other terms.
    """
    state = store.load()
    if state is None:
        return None
    if state.teacher != models.teacher_digest:
        raise StateError(
            f"the state of node {name} in {store.folder} is of another teacher than {config.model.teacher!r}: "
            "put back node-config keys 'teacher' and 'lora-rank', or remove that folder to start afresh",
            outside="its state is of another teacher: its owner must put back the teacher, or remove the state",
        )
    state.terms.require(config, name)
    return state


def earlier_answer(state: NodeState, request: TrainRequest, name: str) -> TrainReply | None:
    """The reply to a request for the round that the client trained last, on the same student; None: a new round.

    Raises:
        ProtocolError: the client has trained that round on another student, or a later one.
    """
    if state.round < request.round or request.refresh.kind == "snapshot":
        return None
    if (state.round, state.version) == (request.round, request.refresh.version):
        return unpack(state.reply)
    raise ProtocolError(f"node {name} has trained round {state.round} of this lineage, it cannot train {request.round}")


def refreshed(state: NodeState, refresh: Refresh, name: str) -> Mapping[str, Tensor]:
    """The shared tensors at the version that the server asks for.

    Raises:
        ProtocolError: the updates in the message do not go on from the version that the client holds.
    """
    if refresh.kind == "updates" and state.version == refresh.version:
        return state.student
    base = refresh.version - len(refresh.payloads)
    if refresh.kind != "snapshot" and state.version != base:
        raise ProtocolError(
            f"node {name} holds version {state.version} of the student, "
            f"this message goes from {base} to {refresh.version}: it needs a snapshot"
        )
    return apply_refresh(state.student, refresh)


def owed(state: NodeState, taken: int) -> Mapping[str, Tensor]:
    """What the server still lacks: the residual, and the last update where the server never took that.

    Args:
        state: the client's state.
        taken: the last round of which the server took the client's update; 0: none.
    """
    if state.round <= taken or not state.reply:
        return state.residual
    lost = EncodedUpdate.from_bytes(unpack(state.reply).update).decode()
    return {name: tensor + lost[name] for name, tensor in state.residual.items()}


def lost_rounds(state: NodeState | None, taken: int) -> tuple[str, ...]:
    """A note where the disk holds less than the server took: a client that never took part has nothing to hold."""
    if taken <= (state.round if state else 0):
        return ()
    if state is None:
        return (f"it has no state of this run, of which it has trained round {taken}: its teacher starts afresh",)
    return (f"it has trained round {taken}, its state is of round {state.round}: its teacher goes on from there",)
