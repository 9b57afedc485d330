"""What the owner of a node allows."""

from pathlib import Path

import pytest

from fedkd_flwr.errors import ConfigError
from fedkd_flwr.privacy import Policy, policy_of


def test_a_node_with_data_of_its_own_has_a_policy_unless_its_owner_switches_it_off(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("[runs]\nmax-rounds = 3\n[data]\nlabels = ['yes', 'no']\n")

    assert policy_of({"data-path": "x.csv"}) == Policy()
    assert policy_of({"data-path": "x.csv", "policy": "off"}) is None
    assert policy_of({"partition-id": 0, "num-partitions": 2}) is None
    owned = policy_of({"data-path": "x.csv", "policy": str(file)})
    assert owned is not None
    assert (owned.runs.max_rounds, owned.data.labels, owned.scores) == (3, ("yes", "no"), Policy().scores)


@pytest.mark.parametrize(
    ("text", "named"),
    [("[runs]\nmax-round = 3", "max-round"), ("[scores]\nmin-cell = 0", "min-cell"), ("runs =", "TOML")],
)
def test_a_policy_that_is_none_is_refused_by_file_and_key(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(text)

    with pytest.raises(ConfigError, match=rf"policy {file}: .*{named}"):
        Policy.read(file)
