"""What a policy refuses: each limit, by key, before any data are opened."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fedkd_flwr.client.client import Client
from fedkd_flwr.codec import Budget, Uniform, UpdateCodec
from fedkd_flwr.config.policy import Policy
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import ConfigError, FedKDError, ProtocolError
from fedkd_flwr.privacy.enforcement import require_examples, require_label_shares, require_small, violations

# Run-config keys that break a limit, the key that is named, the policy key.
BROKEN: list[tuple[dict[str, Any], str, str]] = [
    ({"num-rounds": 501}, "num-rounds", "runs.max-rounds"),
    ({"train.learning-rate": 1e4}, "train.learning-rate", "training.max-learning-rate"),
    ({"train.teacher-learning-rate": 1.0}, "train.teacher-learning-rate", "training.max-learning-rate"),
    ({"train.head-learning-rate-factor": 1e9}, "train.head-learning-rate-factor", "training.max-learning-rate"),
    ({"train.max-grad-norm": 1e-9}, "train.max-grad-norm", "training.min-grad-norm"),
    ({"train.batch-size": 4, "train.local-steps": 64}, "train.batch-size", "training.min-batch-size"),
    ({"train.local-steps": 1}, "train.local-steps", "training.min-examples"),
    ({"data.labels": "a,b", "train.class-weights": "0.0000001,1"}, "train.class-weights", "training.max-class-weight"),
    ({"codec.kind": "dense"}, "codec.kind", "update.min-compression"),
    ({"codec.kind": "dense", "codec.bits": 8}, "codec.kind", "update.min-compression"),
    ({"codec.kind": "rotated"}, "codec.kind", "update.min-compression"),
    ({"model.max-length": 16}, "model.max-length", "training.min-length"),
    ({"method": "fedavg"}, "codec.kind", "update.min-compression"),
    ({"codec.budget": "2x"}, "codec.budget", "update.min-compression"),
]
ALLOWED: list[dict[str, Any]] = [
    {},
    {"method": "local"},
    {"method": "fedavg", "codec.kind": "budget"},
    {"method": "fedkd-paper"},
    {"codec.budget": "5MB/run", "num-rounds": 100},
    {"train.max-grad-norm": 0.0},
    {"train.batch-size": 4, "train.gradient-accumulation": 8},
    {"train.local-steps": 0},
    {"data.labels": "a,b", "train.class-weights": "1,5"},
]
OWNERS = Policy.model_validate(
    {"runs": {"tasks": ["multi-label"]}, "data": {"columns": ["note", "label"], "labels": ["yes", "no"]}}
)


def found(policy: Policy, raw: dict[str, Any]) -> list[str]:
    return [f"{each.key} {each.limit}" for each in violations(policy, RunConfig.parse(raw))]


@pytest.mark.parametrize(("changes", "key", "limit"), BROKEN, ids=str)
def test_each_limit_is_held_by_key(defaults: dict[str, Any], changes: dict[str, Any], key: str, limit: str) -> None:
    (found,) = violations(Policy(), RunConfig.parse(defaults | changes))
    assert (found.key, found.limit) == (key, limit)
    assert f"run-config key '{key}' is " in str(found) and f"policy key '{limit}' allows " in str(found)


@pytest.mark.parametrize("changes", ALLOWED, ids=str)
def test_what_people_run_is_allowed(defaults: dict[str, Any], changes: dict[str, Any]) -> None:
    assert found(Policy(), defaults | changes) == []


def test_tasks_columns_and_labels_are_the_owners(defaults: dict[str, Any]) -> None:
    assert found(OWNERS, defaults) == ["task runs.tasks", "data.text-column data.columns", "data.labels data.labels"]
    right = {"task": "multi-label", "data.text-column": "note", "data.labels": "no,yes"}
    assert found(OWNERS, defaults | {"data.dataset": "csv:x"} | right) == []
    assert found(OWNERS, defaults | {"data.dataset": "csv:x"} | right | {"data.text-pair-column": "name"}) == [
        "data.text-pair-column data.columns"
    ]


def test_what_leaves_of_a_refusal_has_no_name_that_only_the_owner_knows(defaults: dict[str, Any]) -> None:
    for violation in violations(OWNERS, RunConfig.parse(defaults | {"data.labels": "a,b"})):
        assert "note" not in violation.outside and "yes" not in violation.outside


def test_a_node_refuses_before_it_opens_its_data(run_config: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """All at once; the file is not there, and nobody looked for it."""
    raw = RunConfig.parse(run_config(labels="a,b", learning_rate=1e4, max_grad_norm=1e-9))
    node = {"name": "north", "data-path": str(tmp_path / "absent.csv"), "state-dir": str(tmp_path / "north")}
    with pytest.raises(ConfigError) as refused:
        Client(raw, node)
    assert "'train.learning-rate'" in refused.value.outside and "'train.max-grad-norm'" in refused.value.outside
    assert not (tmp_path / "north").exists()
    with pytest.raises(FedKDError, match="no such file"):
        Client(raw, node | {"policy": "off"})


def test_a_node_with_few_examples_takes_no_part_and_none_is_used_too_often() -> None:
    least = Policy().training.min_examples
    require_examples(Policy(), least, least * 20)
    require_examples(None, 1, 1000)
    with pytest.raises(ConfigError, match=r"training\.min-examples"):
        require_examples(Policy(), least - 1, least - 1)
    with pytest.raises(ConfigError, match=r"training\.max-epochs"):
        require_examples(Policy(), least, least * 20 + 1)


def test_label_shares_that_leave_one_class_all_weight_are_refused() -> None:
    require_label_shares(Policy(), (0.001, 0.999), (0.5, 0.5))
    with pytest.raises(ProtocolError, match=r"training\.max-class-weight"):
        require_label_shares(Policy(), (0.99, 0.01), (1e-6, 0.9))
    with pytest.raises(ProtocolError, match=r"training\.max-class-weight"):
        require_label_shares(Policy(), (0.99, 0.01), (0.5,))


@pytest.mark.parametrize("shape", [(64, 32), (4, 3)])
def test_an_update_is_held_to_the_bytes_of_its_numbers(shape: tuple[int, ...]) -> None:
    """Names and shapes of a tiny model are larger than its numbers: they do not count."""
    torch.manual_seed(0)
    update = {f"layer.{i}.of.a.long.name": torch.randn(shape) for i in range(4)}
    dense = 4 * 4 * shape[0] * shape[1]
    policy = Policy.model_validate({"update": {"min-compression": 8.0}})
    require_small(policy, UpdateCodec(allocation=Budget(400)).encode(update).to_bytes()[:0])
    least = UpdateCodec(allocation=Budget(10_000)).encode({n: t * 0 for n, t in update.items()}).nbytes
    require_small(policy, UpdateCodec(allocation=Budget(least + dense // 9)).encode(update).to_bytes())
    for codec in (UpdateCodec(allocation=Uniform()), UpdateCodec(allocation=Uniform(), bits=8)):
        data = codec.encode(update).to_bytes()
        require_small(None, data)
        with pytest.raises(ProtocolError, match=r"update\.min-compression"):
            require_small(policy, data)
