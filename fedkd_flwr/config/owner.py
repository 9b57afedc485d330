"""What the owner of a node's data decides before any run does: label names, columns, where the node's state lies."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fedkd_flwr.config.name_lists import listed
from fedkd_flwr.config.policy import policy_of
from fedkd_flwr.errors import ConfigError

if TYPE_CHECKING:
    from fedkd_flwr.config.schema import RunConfig

DATA_KEYS = {
    "text-column", "text-pair-column", "label-column", "label-separator", "labels", "skip-unlabelled", "separator",
    "encoding",
}  # fmt: skip
"""Run-config keys on how data are read, which the owner of data may set for them."""

STATE_DIR = "state"
"""Where the state of a node with data of its own lies, below the folder in which it was started."""


def is_owned(node_config: Mapping[str, Any]) -> bool:
    """Whether a node has data of its own; others are simulated."""
    return "data-path" in node_config


def owners_keys(config: "RunConfig", own: Mapping[str, Any], node_config: Mapping[str, Any]) -> dict[str, Any]:
    """What the owner of a node decides in place of a run.

    Args:
        config: of the run.
        own: the run-config keys that the node config sets.
        node_config: of the node.

    Returns:
        These keys, but for those on data that the run does not read. Where the node has data of its own `state-dir` is
        never the run's, and the labels are the policy's where neither the run nor the owner names any.

    Raises:
        ConfigError: the policy cannot be read.
    """
    found = {key: value for key, value in own.items() if _is_read(config, key)}
    if is_owned(node_config):
        found.setdefault("state-dir", STATE_DIR)
        policy = policy_of(node_config)
        if policy is not None and policy.data.labels and not config.labels and _is_read(config, "labels"):
            found.setdefault("labels", listed(policy.data.labels))
    return found


def _is_read(config: "RunConfig", key: str) -> bool:
    """Whether a run reads a key: an owner sets keys for their data once, whatever runs come."""
    match key:
        case "text-pair-column":
            return bool(config.text_pair_column)
        case "text-column" | "label-column":
            return config.task not in ("image-classification", "news-recommendation")
        case "label-separator":
            return config.task == "multi-label"
        case "skip-unlabelled":
            return config.task in ("text-classification", "regression")
        case "labels":
            return config.task != "news-recommendation"
        case _:
            return True


def require_named_labels(config: "RunConfig", node_config: Mapping[str, Any]) -> None:
    """Whether the labels of a node with data of its own are named: they leave it, so they never come from the data.

    Args:
        config: of the node.
        node_config: of the node.

    Raises:
        ConfigError: they are not; says where.
    """
    if not is_owned(node_config) or config.label_names or config.task == "news-recommendation":
        return
    what = (
        "the lowest and the highest number, such as '1,5'"
        if config.task == "regression"
        else "all of them, such as 'yes,no'"
    )
    message = (
        "no labels are named, and a node with data of its own does not tell those of its data: set run-config key "
        f"'labels' to {what}, or let the owner set node-config key 'labels'"
    )
    raise ConfigError(message, outside=message)
