"""The node-config: what the owner of a node decides before any run does, and the run as it is there."""

from collections.abc import Mapping
from typing import Any

from fedkd_flwr.config.groups import Value
from fedkd_flwr.config.name_lists import listed
from fedkd_flwr.config.policy import policy_of
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.config.tasks import TASKS
from fedkd_flwr.errors import ConfigError
from fedkd_flwr.names import require_identity
from fedkd_flwr.runtime.registry import readers_of

DATA_KEYS = {
    "text-column", "text-pair-column", "label-column", "label-separator", "labels", "skip-unlabelled", "separator",
    "encoding",
}  # fmt: skip
"""Node-config keys on how data are read, which the owner of data may set for them."""

_OVERRIDES = {
    "device": "run.device",
    "precision": "run.precision",
    "threads": "run.threads",
    "state-dir": "run.state-dir",
    "lora-rank": "model.lora-rank",
    **{key: f"data.{key}" for key in DATA_KEYS},
}
"""Node-config keys that take the place of a run-config key, and this key."""

_OWN = {"name", "partition-id", "num-partitions", "data-path", "teacher", "policy"}
"""The other keys of a node-config: who the node is, its data, its teacher, what of it may leave."""

STATE_DIR = "state"
"""Where the state of a node with data of its own lies, below the folder in which it was started."""


def is_owned(node_config: Mapping[str, Any]) -> bool:
    """Whether a node has data of its own; others are simulated."""
    return "data-path" in node_config


def config_at_node(config: RunConfig, node_config: Mapping[str, Any]) -> RunConfig:
    """A run as the owner of a node wants it there.

    Raises:
        ConfigError: a node-config key is unknown or its value is not allowed; names the key.
    """
    unknown = sorted(set(node_config) - set(_OVERRIDES) - _OWN)
    if unknown:
        known = ", ".join(sorted(set(_OVERRIDES) | _OWN))
        raise ConfigError(
            f"node-config key {unknown[0]!r} is unknown: a node may set {known}",
            outside="a node-config key is unknown",
        )
    require_identity(node_config)
    return RunConfig.parse(
        config.as_run_config()
        | {"model.teachers": ""}
        | _own_teacher(config, node_config)
        | _owners_keys(config, node_config)
    )


def _owners_keys(config: RunConfig, node_config: Mapping[str, Any]) -> dict[str, Any]:
    """The run-config keys that the owner of a node decides in place of a run.

    Keys that the run does not read are left out. Where the node has data of its own `run.state-dir` is never
    the run's, and the labels are the policy's where neither the run nor the owner names any.
    """
    found = {
        run_key: node_config[key] for key, run_key in _OVERRIDES.items() if key in node_config and _is_read(config, key)
    }
    if is_owned(node_config):
        found.setdefault("run.state-dir", STATE_DIR)
        policy = policy_of(node_config)
        if policy is not None and policy.data.labels and not config.data.labels and _is_read(config, "labels"):
            found.setdefault("data.labels", listed(policy.data.labels))
    return found


def _own_teacher(config: RunConfig, node_config: Mapping[str, Any]) -> dict[str, Value]:
    """What differs where a node has a teacher of its own: a model apart from the student, which stays the run's."""
    turns, turn = config.model.teacher_names, node_config.get("partition-id")
    teacher = node_config.get("teacher") or (turns[int(turn) % len(turns)] if turns and turn is not None else "")
    if teacher in ("", config.model.teacher) or "teacher" not in config.parts.trains:
        return {}
    if config.model.shared_layers > config.model.student_layers:
        raise ConfigError(
            f"a node's own teacher {teacher!r} cannot take layers of the run's: leave it out of the node config, "
            "or set model.shared-layers to 0"
        )
    defaults = config.defaults()
    nested_only = {key: defaults[key] for key in ("model.shared-layers", "model.teacher-own-share")}
    return {
        "model.teacher": teacher,
        "model.student": config.model.student or config.model.teacher,
        "model.architecture": "separate",
        **nested_only,
    }


def _is_read(config: "RunConfig", key: str) -> bool:
    """Whether a run reads a key: an owner sets keys for their node once, whatever runs come."""
    if key == "lora-rank":
        return "teacher" in config.parts.trains
    if key == "text-pair-column":
        return bool(config.data.text_pair_column)
    readers = readers_of(f"data.{key}", TASKS)
    return not readers or config.task in readers


def require_named_labels(config: "RunConfig", node_config: Mapping[str, Any]) -> None:
    """Whether the labels of a node with data of its own are named: they leave it, so they never come from the data.

    Args:
        config: of the node.
        node_config: of the node.

    Raises:
        ConfigError: they are not; says where.
    """
    if not is_owned(node_config) or config.data.label_names or config.task_spec.labels == "none":
        return
    what = (
        "the lowest and the highest number, such as '1,5'"
        if config.task_spec.labels == "number"
        else "all of them, such as 'yes,no'"
    )
    message = (
        "no labels are named, and a node with data of its own does not tell those of its data: set run-config key "
        f"'data.labels' to {what}, or let the owner set node-config key 'labels'"
    )
    raise ConfigError(message, outside=message)
