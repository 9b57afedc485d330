"""The messages between server and nodes, typed; `fedkd_flwr/records.py` makes Flower's records of them.

Node and server speak in these types:

    JoinRequest      -> JoinReply       who are you, what do you hold (once per node and run)
    TrainRequest     -> TrainReply      bring your student up to date, evaluate if asked, train, send your update
    EvaluateRequest  -> EvaluateReply   bring your student up to date, evaluate
"""

from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor

from fedkd_flwr import tensors
from fedkd_flwr.codec import EncodedUpdate
from fedkd_flwr.errors import ProtocolError
from fedkd_flwr.names import LINEAGE_PATTERN, NODE_PATTERN
from fedkd_flwr.runtime.one_line import one_line

Count = Annotated[int, Field(ge=0, lt=2**53)]
"""Whole numbers that are exact as floats: none that a node claims can overflow a sum."""
Lineage = Annotated[str, Field(pattern=LINEAGE_PATTERN)]
NodeName = Annotated[str, Field(pattern=NODE_PATTERN)]
"""Either is a folder on the disk of whoever receives it."""
RunName = Annotated[str, Field(pattern=rf"^({NODE_PATTERN[1:-1]})?$")]
"""As those of nodes, or empty."""
Line = Annotated[str, AfterValidator(one_line)]
"""What a node says for people: one line without control characters, cut to a bounded length."""
Digest = Annotated[str, Field(max_length=64)]
Notes = Annotated[tuple[Line, ...], Field(max_length=20)]
"""What the owner of a node should know, in sentences without any of its data."""
Shares = tuple[Annotated[float, Field(gt=0, lt=1)], ...]
"""Of the examples that have each label."""
Key = Annotated[str, Field(pattern=r"^[a-z0-9@-]{1,40}$")]
Scores = Annotated[dict[Key, Annotated[float, Field(ge=-1e30, le=1e30)]], Field(max_length=20)]
"""Metric name -> value, as `Task` metrics give them; none so large that it overflows a sum."""
Seconds = Annotated[dict[Key, Annotated[float, Field(ge=0, le=1e9)]], Field(max_length=20)]
"""Part of the work -> its wall seconds."""


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class JoinRequest(_Body):
    """Asks a node who it is; the node prepares its data, models and state for this lineage."""

    lineage: Lineage


class DataCounts(_Body):
    """How many of a node's rows are what; see `fedkd_flwr.data.DataReport`."""

    rows: Count = 0
    repeats: Count = 0
    conflicts: Count = 0
    unlabelled: Count = 0
    cut: Count = 0
    longest: Count = 0


class JoinReply(_Body):
    """Who a node is and what it holds.

    Attributes:
        node: the name under which it keeps its state, unique in the federation.
        partition: its place in the order of sums; equal partitions are ordered by `node`.
        title: its data, for people.
        labels, train_examples: of its data.
        data: what was counted while they were read.
        label_shares: of its training examples; empty where the run neither adjusts logits to them nor balances classes.
        partitions: among how many nodes the data set is shared out; 0: the data are its own.
        round: in which it trained last, in this lineage; 0: it holds no state.
        version: of the student that it holds.
        digest: SHA-256 of the student's trainable tensors at that version.
        encoder_digest: the same without heads.
        frozen_digest: SHA-256 of the student's frozen tensors, which never travel.
        teacher_bytes: its teacher's trainable tensors as float32.
        device: where it computes, in words.
        notes: what its owner should know (a state that was damaged, say).
    """

    node: NodeName
    partition: Count
    title: Line
    labels: tuple[str, ...]
    train_examples: Annotated[Count, Field(ge=1)]
    data: DataCounts = DataCounts()
    label_shares: Shares = ()
    partitions: Count
    round: Count
    version: Count
    digest: Digest
    encoder_digest: Digest
    frozen_digest: Digest
    teacher_bytes: Count
    device: Line
    notes: Notes = ()


class Refresh(_Body):
    """How a node brings its student up to date before anything else.

    Attributes:
        kind: nothing (it holds `version`), updates (apply the payloads in order) or snapshot (replace; of two payloads
            the first is the student after the best round, which the node is to keep).
        version: of the student afterwards.
        sizes: bytes of each payload.
        payloads: encoded updates, or one dense encoded snapshot; they travel in the message's Array.
    """

    kind: Literal["nothing", "updates", "snapshot"]
    version: Count
    sizes: tuple[Count, ...] = ()
    payloads: tuple[bytes, ...] = Field(default=(), exclude=True)

    @property
    def nbytes(self) -> int:
        """Bytes of all payloads."""
        return sum(self.sizes)

    @classmethod
    def of(cls, kind: Literal["nothing", "updates", "snapshot"], version: int, *payloads: bytes) -> Self:
        """A refresh to `version` with these payloads."""
        return cls(kind=kind, version=version, sizes=tuple(map(len, payloads)), payloads=payloads)

    def until(self, version: int, held: int) -> "Refresh | None":
        """The part of this refresh that brings a node from version `held` to an older one; None: there is none."""
        if self.kind == "snapshot" and version and len(self.payloads) > 1:
            return Refresh.of("snapshot", version, self.payloads[0])
        if self.kind == "updates" and held < version <= held + len(self.payloads) == self.version:
            return Refresh.of("updates", version, *self.payloads[: version - held])
        return None

    def with_payloads(self, joined: bytes) -> Self:
        """This refresh with its payloads cut out of the bytes that travelled.

        Raises:
            ProtocolError: the bytes are not as many as `sizes` says.
        """
        if len(joined) != self.nbytes:
            raise ProtocolError(f"the refresh announces {self.nbytes} bytes, {len(joined)} came")
        ends = list(accumulate(self.sizes, initial=0))
        return self.model_copy(update={"payloads": tuple(joined[a:b] for a, b in pairwise(ends))})


class TrainRequest(_Body):
    """One round for one node.

    Attributes:
        run: how people call the run, for the node's own records.
        round: from 1.
        taken: the last round of which the server took this node's update; 0: none.
        shared_head: whether the student's head is shared; otherwise each node keeps its own.
        label_shares: of all nodes, to which heads are adjusted and by which classes are balanced; empty: neither.
        evaluate: score the refreshed student and the teacher before training.
        best: the round whose models the node is to keep until it is told another; 0: none.
    """

    lineage: Lineage
    run: RunName = ""
    round: Annotated[int, Field(ge=1)]
    taken: Count = 0
    shared_head: bool = True
    label_shares: Shares = ()
    evaluate: bool
    best: Count = 0
    refresh: Refresh


class EvaluateRequest(_Body):
    """Asks a node to score the refreshed student and its teacher after `round`, the last; other fields as in training.

    With its answer the node is done: its state is finished.

    Attributes:
        use_best: score and export the models of round `best` instead.
    """

    lineage: Lineage
    run: RunName = ""
    round: Count
    taken: Count = 0
    shared_head: bool = True
    label_shares: Shares = ()
    best: Count = 0
    use_best: bool = False
    refresh: Refresh


class Evaluation(_Body):
    """Scores on a node's held-out examples, each without the metrics that are undefined of these.

    Attributes:
        student, teacher: the student as received and the node's own teacher, where there are such models.
        student_own_labels, teacher_own_labels: those whose heads travel, adjusted to the node's label frequencies.
        examples: how many there are.
    """

    student: Scores | None
    teacher: Scores | None
    student_own_labels: Scores | None = None
    teacher_own_labels: Scores | None = None
    examples: Count


class EvaluateReply(_Body):
    """Scores of a node.

    Attributes:
        version: of the student that was scored.
        not_exported: why the node has not written its models as folders; empty: it has.
        seconds: wall seconds of the node's work by part.
        worker: the process that did it.
        notes: what its owner should know (a state that was lost, say).
    """

    node: NodeName
    version: Count
    evaluation: Evaluation
    not_exported: Line = ""
    seconds: Seconds
    worker: Line
    notes: Notes = ()


class TrainReply(_Body):
    """A node's update of a round.

    Attributes:
        version: of the student from which the update starts.
        evaluation: before training, where asked for.
        losses: mean task loss of training by model.
        distillation: mean weight of each distillation term.
        seconds: wall seconds of the node's work by part.
        worker: the process that did it.
        notes: what its owner should know (a state that was lost, say).
        update: the encoded update; it travels in the message's Array.
    """

    lineage: Lineage
    node: NodeName
    round: Annotated[int, Field(ge=1)]
    version: Count
    evaluation: Evaluation | None
    losses: Scores
    distillation: Scores = {}
    seconds: Seconds
    worker: Line
    notes: Notes = ()
    update: bytes = Field(default=b"", exclude=True)


Request = JoinRequest | TrainRequest | EvaluateRequest
Reply = JoinReply | TrainReply | EvaluateReply


def apply_refresh(student: Mapping[str, Tensor], refresh: Refresh) -> Mapping[str, Tensor]:
    """The student's tensors after a refresh, at the server and at every node alike.

    Raises:
        CodecError: a payload is damaged or not of this student; names the tensor.
    """
    for payload in refresh.payloads:
        encoded = EncodedUpdate.from_bytes(payload)
        encoded.require(tensors.shapes(student))
        decoded = encoded.decode()
        if refresh.kind == "snapshot":
            student = decoded
        else:
            student = {name: tensor + decoded[name] for name, tensor in student.items()}
    return student
