from collections.abc import Callable

import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedkd_flwr.config import RunConfig
from fedkd_flwr.data.partition import share
from fedkd_flwr.errors import DataError

Configure = Callable[..., RunConfig]


def dataset(owners: list[str]) -> Dataset:
    rows = range(len(owners))
    return Dataset.from_dict({"text": [f"t{i}" for i in rows], "label": [i % 2 for i in rows], "owner": owners})


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["natural", "iid", "dirichlet"]), partitions=st.integers(1, 5), seed=st.integers(0, 2**32 - 1)
)
def test_partitions_are_disjoint_and_cover_everything(
    kind: str, partitions: int, seed: int, configure: Configure
) -> None:
    data = dataset([f"hospital {i % 5}" for i in range(120)])
    config = configure(partition=kind, seed=seed, dirichlet_alpha=5.0)
    parts = [share(data, config, i, partitions, "data")[1]["text"][:] for i in range(partitions)]
    assert sorted(text for part in parts for text in part) == sorted(data["text"][:])
    assert parts == [share(data, config, i, partitions, "data")[1]["text"][:] for i in range(partitions)]


@pytest.mark.parametrize("kind", ["iid", "dirichlet"])
def test_the_seed_decides_the_shares(kind: str, configure: Configure) -> None:
    data = dataset(["a"] * 50)
    first, second = (share(data, configure(partition=kind, seed=s), 0, 2, "data")[1]["text"][:] for s in (0, 1))
    assert first != second


def test_fewer_nodes_than_owners_share_them_round_robin(configure: Configure) -> None:
    data = dataset(["c", "a", "b", "e", "d"])
    config = configure(partition="natural")
    assert [share(data, config, i, 2, "data")[0] for i in range(2)] == ["a+c+e", "b+d"]
    assert share(data, config, 1, 2, "data")[1]["text"][:] == ["t2", "t4"]


def test_more_nodes_than_owners_are_refused(configure: Configure) -> None:
    with pytest.raises(DataError, match=r"data: 3 nodes cannot share the 2 values of column 'ward': run at most 2"):
        share(dataset(["a", "b"]), configure(partition="natural", partition_column="ward"), 0, 3, "data")


def test_a_dirichlet_share_that_cannot_be_drawn_is_refused(configure: Configure) -> None:
    with pytest.raises(DataError, match=r"dirichlet-alpha 0.01 leaves one of 8 nodes fewer than 2 of its 20 examples"):
        share(dataset(["a"] * 20), configure(partition="dirichlet", dirichlet_alpha=0.01), 0, 8, "data")
