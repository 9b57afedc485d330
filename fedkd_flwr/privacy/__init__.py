"""What bounds and hides what leaves a node whose data are its owner's own."""

from fedkd_flwr.privacy.policy import Policy, policy_of

__all__ = ["Policy", "policy_of"]
