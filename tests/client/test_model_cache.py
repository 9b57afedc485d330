"""Clients of one process, in turn or side by side, each as if alone."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.federation import Config, nodes

from fedkd_flwr.client.caches import Caches
from fedkd_flwr.client.client import Client
from fedkd_flwr.client.model_cache import ModelCache, PairKey
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.messages import Refresh, TrainReply, TrainRequest

LINEAGE = "e" * 16
FIRST = TrainRequest(lineage=LINEAGE, round=1, evaluate=False, refresh=Refresh.of("nothing", 0))


@pytest.fixture
def make(run_config: Config, tmp_path: Path, tiny_bert_with_dropout: Path) -> Callable[..., Client]:
    """A client of a run on two partitions, with its state in a folder of its own; its training draws random numbers."""

    def make(state: str, partition: int, caches: Caches | None) -> Client:
        changes = {"teacher": str(tiny_bert_with_dropout), "architecture": "nested"}
        config = RunConfig.parse(run_config(state_dir=str(tmp_path / state), **changes))
        return Client(config, nodes(2)[partition], caches)

    return make


def trained_inside(outer: Client, inner: Client) -> tuple[TrainReply, TrainReply]:
    """What two clients answer, the second of which trains a whole round between two batches of the first."""
    found: list[TrainReply] = []
    begun = False
    batches = outer._prepared.task.batches

    def interrupted(*arguments: Any) -> Iterator[Any]:
        nonlocal begun
        for number, batch in enumerate(batches(*arguments)):
            if number == 1 and not begun:
                begun = True
                found.append(inner.train(FIRST))
            yield batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outer._prepared.task, "batches", interrupted)
        reply = outer.train(FIRST)
    return reply, found[0]


@pytest.mark.parametrize("shared", [True, False], ids=["one cache", "a cache each"])
def test_two_clients_side_by_side_train_as_each_does_alone(make: Callable[..., Client], shared: bool) -> None:
    cache = Caches() if shared else None
    alone = [make("alone", partition, None).train(FIRST).update for partition in range(2)]
    assert alone[0] != alone[1]
    together = trained_inside(make("together", 0, cache), make("together", 1, cache))
    assert [reply.update for reply in together] == alone


def test_clients_in_turn_train_as_each_does_alone(make: Callable[..., Client]) -> None:
    cache = Caches()
    alone = [make("alone", partition, None).train(FIRST).update for partition in range(2)]
    assert [make("in turn", partition, cache).train(FIRST).update for partition in range(2)] == alone


def test_a_pair_is_lent_to_one_client_at_a_time_and_kept_unless_its_use_fails(run_config: Config) -> None:
    cache, config = ModelCache(), RunConfig.parse(run_config(architecture="nested"))
    key, other = (PairKey(config, labels, True, None) for labels in (("no", "yes"), ("a", "b", "c")))
    with cache.lend(key) as first, cache.lend(key) as second:
        assert first is not second
        with torch.no_grad():
            for parameter in first.pair.groups().shared.values():
                parameter.fill_(7.0)
        for name, parameter in second.pair.groups().shared.items():
            assert torch.equal(parameter, second.initial_shared[name])
    with cache.lend(key) as again:
        assert again is first  # the one that came back last
    with pytest.raises(RuntimeError), cache.lend(key) as failed:
        raise RuntimeError
    with cache.lend(key) as afresh:
        assert afresh is not failed
    with cache.lend(other):
        pass
    with cache.lend(key) as evicted:
        assert evicted is not afresh
