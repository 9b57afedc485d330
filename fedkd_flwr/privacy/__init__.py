"""What bounds and hides what leaves a node whose data are its owner's own."""

from fedkd_flwr.privacy.owner import is_owned, require_named_labels
from fedkd_flwr.privacy.policy import Policy, policy_of
from fedkd_flwr.privacy.replies import told

__all__ = ["Policy", "is_owned", "policy_of", "require_named_labels", "told"]
