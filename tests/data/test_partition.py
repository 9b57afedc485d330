import math
from collections.abc import Callable

import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedkd_flwr.data import DataSettings
from fedkd_flwr.data.partition import partition, share_out, share_rows
from fedkd_flwr.errors import DataError

Configure = Callable[..., DataSettings]

DRAWN = ["iid", "dirichlet", "shard"]


def dataset(owners: list[str]) -> Dataset:
    rows = range(len(owners))
    return Dataset.from_dict({"text": [f"t{i}" for i in rows], "label": [i % 2 for i in rows], "owner": owners})


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["natural", *DRAWN]),
    partitions=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_partitions_are_disjoint_and_cover_everything(
    kind: str, partitions: int, seed: int, configure: Configure
) -> None:
    data = dataset([f"hospital {i % 5}" for i in range(427)])
    own = {"dirichlet": {"dirichlet_alpha": 5.0}}
    config = configure(partition=kind, seed=seed, **own.get(kind, {}))
    parts = [share_out(data, config, partitions, "data")[i][1]["text"][:] for i in range(partitions)]
    assert sorted(text for part in parts for text in part) == sorted(data["text"][:])
    assert parts == [share_out(data, config, partitions, "data")[i][1]["text"][:] for i in range(partitions)]


@pytest.mark.parametrize("kind", DRAWN)
def test_the_seed_decides_the_shares(kind: str, configure: Configure) -> None:
    data = dataset(["a"] * 50)
    first, second = (share_out(data, configure(partition=kind, seed=s), 2, "data")[0][1]["text"][:] for s in (0, 1))
    assert first != second


def test_fewer_nodes_than_owners_share_them_round_robin(configure: Configure) -> None:
    data = dataset(["c", "a", "b", "e", "d"])
    config = configure(partition="natural")
    assert [share_out(data, config, 2, "data")[i][0] for i in range(2)] == ["a+c+e", "b+d"]
    assert share_out(data, config, 2, "data")[1][1]["text"][:] == ["t2", "t4"]


def test_more_nodes_than_owners_are_refused(configure: Configure) -> None:
    with pytest.raises(DataError, match=r"data: 3 nodes cannot share the 2 values of column 'ward': run at most 2"):
        share_out(dataset(["a", "b"]), configure(partition="natural", partition_column="ward"), 3, "data")


def test_a_dirichlet_share_that_cannot_be_drawn_is_refused(configure: Configure) -> None:
    with pytest.raises(
        DataError, match=r"data.dirichlet-alpha 0.01 leaves one of 8 nodes fewer than 2 of its 20 examples"
    ):
        share_out(dataset(["a"] * 20), configure(partition="dirichlet", dirichlet_alpha=0.01), 8, "data")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(partitions=st.integers(1, 4), rows=st.integers(90, 200))
def test_shares_by_chance_are_of_one_size(partitions: int, rows: int, configure: Configure) -> None:
    """To within an example; classes are mixed everywhere."""
    data, config = dataset(["a"] * rows), configure(partition="iid")
    parts = [share_out(data, config, partitions, "data")[i][1] for i in range(partitions)]
    for part in parts:
        assert abs(len(part) - rows / partitions) <= 1
        assert 0.2 < sum(part["label"][:]) / len(part) < 0.8


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(classes=st.integers(2, 10), partitions=st.integers(2, 6), shards=st.integers(1, 3), rows=st.integers(80, 300))
def test_a_node_of_few_shards_sees_few_labels(classes: int, partitions: int, shards: int, rows: int) -> None:
    """A block of the sorted examples that is no longer than a class holds two classes at most."""
    labels = [i % classes for i in range(rows)]
    data = dataset(["a"] * rows).remove_columns("label").add_column("label", labels)
    block = math.ceil(rows / (partitions * shards))
    per_shard = 1 + math.ceil(block / (rows // classes))
    for part in partition(data, partitions, "shard", shards=shards):
        assert len(set(part["label"][:])) <= shards * per_shard
        assert len(part) <= shards * block


def test_shards_of_numbers_are_of_near_numbers() -> None:
    data = dataset(["a"] * 100).remove_columns("label").add_column("label", [i / 10 for i in range(100)])
    ranges = [part["label"][:] for part in partition(data, 4, "shard", shards=1)]
    assert sorted((min(part), max(part)) for part in ranges) == [(0.0, 2.4), (2.5, 4.9), (5.0, 7.4), (7.5, 9.9)]


def test_two_splits_are_shared_out_as_one(configure: Configure) -> None:
    owners = ["a", "b", "a", "b", "a", "b"]
    config = configure(partition="natural")
    name, learnt, held = share_rows(owners, 4, config, 2, "data")[1]
    assert (name, learnt.tolist(), held.tolist()) == ("b", [1, 3], [1])


@pytest.mark.parametrize(
    ("kind", "rows", "nodes"),
    [("iid", 5, 3), ("shard", 7, 4), ("iid", 3, 2)],
)
def test_a_share_that_would_be_too_small_is_refused(kind: str, rows: int, nodes: int, configure: Configure) -> None:
    message = (
        rf"data: data.partition '{kind}' leaves one of {nodes} nodes fewer than 2 of its {rows} examples: run fewer"
    )
    with pytest.raises(DataError, match=message):
        share_out(dataset(["a"] * rows), configure(partition=kind), nodes, "data")
