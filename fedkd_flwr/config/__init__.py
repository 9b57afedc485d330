"""What people write: the run-config, the node-config, the policy of an owner. All of it is validated here."""
