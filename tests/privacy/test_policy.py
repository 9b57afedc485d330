"""What the owner of a node allows."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from fedkd_flwr.config.policy import Policy, policy_of
from fedkd_flwr.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent


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


def _keys(policy: dict[str, Any]) -> set[str]:
    return {f"{group}.{key}" for group, keys in policy.items() for key in keys}


def test_the_policy_that_ships_is_the_default_one_with_every_key_explained() -> None:
    file = ROOT / "docker/policy.toml"
    assert Policy.read(file) == Policy()
    written = tomllib.loads(file.read_text())
    assert _keys(written) == _keys(Policy().model_dump(by_alias=True))
    lines = [line for line in file.read_text().splitlines() if "=" in line.partition("#")[0]]
    assert all(line.partition("#")[2].strip() for line in lines), lines
