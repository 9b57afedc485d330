"""What a policy refuses: a run before any data is opened, a node with too few examples, a message, an update."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from fedkd_flwr.codec import EncodedUpdate
from fedkd_flwr.config.codecs import CODECS
from fedkd_flwr.config.policy import Policy
from fedkd_flwr.errors import ConfigError, ProtocolError

if TYPE_CHECKING:
    from fedkd_flwr.config.schema import RunConfig


@dataclass(frozen=True)
class Violation:
    """A key of a run that a policy does not allow.

    Attributes:
        key: of the run config.
        value: of that key.
        limit: the policy key, as GROUP.KEY.
        allowed: what that key allows.
        named: whether value and `allowed` are names that only the owner may know.
    """

    key: str
    value: str
    limit: str
    allowed: str
    named: bool = False

    def __str__(self) -> str:
        return f"run-config key {self.key!r} is {self.value}: policy key {self.limit!r} allows {self.allowed}"

    @property
    def outside(self) -> str:
        """The same without names."""
        if self.named:
            return f"run-config key {self.key!r} is not what policy key {self.limit!r} allows"
        return str(self)


def violations(policy: Policy, config: "RunConfig") -> list[Violation]:
    """All that a policy does not allow of a run, as far as that can be known without data and models.

    Args:
        policy: of the owner.
        config: of the run, at the owner's node.
    """
    return [
        *_of_runs(policy, config),
        *_of_data(policy, config),
        *_of_training(policy, config),
        *_of_codec(policy, config),
    ]


def require_allowed(policy: Policy | None, config: "RunConfig") -> None:
    """Whether a policy allows a run.

    Raises:
        ConfigError: it does not; names each key.
    """
    if policy is not None and (found := violations(policy, config)):
        raise ConfigError("; ".join(map(str, found)), outside="; ".join(each.outside for each in found))


def require_examples(policy: Policy | None, examples: int, wanted: int) -> None:
    """Whether enough training examples take part in an update.

    Args:
        policy: of the owner; None: all is allowed.
        examples: training examples of the node.
        wanted: how many of them, repeats among them, a round trains on.

    Raises:
        ConfigError: they are too few, or each is used too often.
    """
    if policy is None:
        return
    training = policy.training
    if examples < training.min_examples:
        few = (
            "this node has fewer training examples than policy key 'training.min-examples' asks for "
            f"({training.min_examples})"
        )
        raise ConfigError(few, outside=few)
    if wanted > training.max_epochs * examples:
        often = (
            "run-config keys 'train.local-steps', 'train.batch-size' and 'train.gradient-accumulation' make a "
            "round pass over this "
            "node's examples more often than policy key 'training.max-epochs' allows "
            f"({training.max_epochs} times): lower one of them"
        )
        raise ConfigError(often, outside=often)


def require_label_shares(policy: Policy | None, own: Sequence[float], all_nodes: Sequence[float]) -> None:
    """Whether label shares that a server sends could belong to a federation with this node in it.

    They weigh the node's examples by label: shares that are made up can leave a single one with any weight.

    Args:
        policy: of the owner; None: all is allowed.
        own: shares of the node's training examples that have each label.
        all_nodes: the same of all nodes, as the server says.

    Raises:
        ProtocolError: they could not.
    """
    if policy is None or not own or not all_nodes:
        return
    limit = policy.training.max_class_weight
    if len(own) != len(all_nodes) or any(mine > limit * share for mine, share in zip(own, all_nodes, strict=True)):
        raise ProtocolError(
            f"the label shares of the message are none of a federation with this node in it: policy key "
            f"'training.max-class-weight' is {limit:g}"
        )


def require_small(policy: Policy | None, update: bytes) -> None:
    """Whether an encoded update holds no more than a policy allows; names and shapes are not counted.

    Raises:
        ProtocolError: it does; nothing of it may leave.
    """
    if policy is None or not update:
        return
    encoded = EncodedUpdate.from_bytes(update)
    dense = sum(4 * prod(shape) for shape in encoded.shapes.values())
    held, limit = encoded.nbytes - encoded.header_nbytes, policy.update.min_compression
    if held * limit > dense:
        raise ProtocolError(
            f"the update is only {dense / held:.3g} times smaller than as float32: policy key "
            f"'update.min-compression' asks for {limit:g}. Set run-config key 'codec.kind' to 'budget', or lower "
            "codec.budget"
        )


def _of_runs(policy: Policy, config: "RunConfig") -> Iterator[Violation]:
    runs = policy.runs
    if runs.tasks and config.task not in runs.tasks:
        yield Violation("task", repr(config.task), "runs.tasks", ", ".join(runs.tasks))
    if config.num_rounds > runs.max_rounds:
        yield Violation("num-rounds", str(config.num_rounds), "runs.max-rounds", f"{runs.max_rounds} at most")


def _of_data(policy: Policy, config: "RunConfig") -> Iterator[Violation]:
    columns, labels, values = policy.data.columns, policy.data.labels, config.as_run_config()
    for key in ("data.text-column", "data.text-pair-column", "data.label-column"):
        column = values[key]
        if columns and column and column not in columns:
            yield Violation(key, repr(column), "data.columns", ", ".join(columns), named=True)
    if labels and sorted(config.data.label_names) != sorted(labels):
        yield Violation(
            "data.labels", repr(config.data.labels), "data.labels", f"{', '.join(labels)}, all of them", named=True
        )


def _of_training(policy: Policy, config: "RunConfig") -> Iterator[Violation]:
    training = policy.training
    limit, factor = training.max_learning_rate, config.train.head_learning_rate_factor
    rates = {
        "train.learning-rate": config.train.learning_rate,
        "train.teacher-learning-rate": config.train.teacher_learning_rate,
    }
    for key, rate in rates.items():
        if rate > limit:
            yield Violation(key, f"{rate:g}", "training.max-learning-rate", f"{limit:g} at most")
    if max(rates.values()) <= limit < (heads := max(rates.values()) * factor):
        yield Violation(
            "train.head-learning-rate-factor",
            f"{factor:g}, which makes the heads' rate {heads:g}",
            "training.max-learning-rate",
            f"{limit:g} at most",
        )
    if 0 < config.train.max_grad_norm < training.min_grad_norm:
        allowed = f"{training.min_grad_norm:g} at least, or 0, which never clips"
        yield Violation("train.max-grad-norm", f"{config.train.max_grad_norm:g}", "training.min-grad-norm", allowed)

    of_step = config.train.batch_size * config.train.gradient_accumulation
    if of_step < training.min_batch_size:
        allowed = f"{training.min_batch_size} at least"
        yield Violation(
            "train.batch-size",
            f"{config.train.batch_size} and 'train.gradient-accumulation' {config.train.gradient_accumulation}",
            "training.min-batch-size",
            allowed,
        )
    if 0 < config.train.local_steps * of_step < training.min_examples:
        yield Violation(
            "train.local-steps",
            f"{config.train.local_steps}, which makes {config.train.local_steps * of_step} examples of all batches",
            "training.min-examples",
            f"{training.min_examples} at least",
        )
    if config.task_spec.inputs != "images" and config.model.max_length < training.min_length:
        yield Violation(
            "model.max-length", str(config.model.max_length), "training.min-length", f"{training.min_length} at least"
        )
    if "," in config.train.class_weights:
        weights = [float(number) for number in config.train.class_weights.split(",")]
        if max(weights) > training.max_class_weight * min(weights):
            allowed = f"none more than {training.max_class_weight:g} times another"
            yield Violation(
                "train.class-weights", repr(config.train.class_weights), "training.max-class-weight", allowed
            )


def _of_codec(policy: Policy, config: "RunConfig") -> Iterator[Violation]:
    limit = policy.update.min_compression
    if "student" not in config.parts.trains:
        return
    codec = config.codec_kind
    chosen = f"{config.codec.kind!r}" + (
        f", which is {codec!r} of method {config.method!r}" if config.codec.kind == "auto" else ""
    )
    spec = CODECS[codec]
    if spec.every_number:
        bits = config.codec.bits or spec.every_number
        if 32 / bits < limit:
            allowed = f"updates {limit:g} times smaller than as float32, at least: set it to 'budget'"
            yield Violation("codec.kind", f"{chosen}, at {bits} bits a number", "update.min-compression", allowed)
    if "codec.budget" in spec.keys and config.codec.budget.endswith("x") and float(config.codec.budget[:-1]) < limit:
        yield Violation("codec.budget", repr(config.codec.budget), "update.min-compression", f"{limit:g}x at least")
