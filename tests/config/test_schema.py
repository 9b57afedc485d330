import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkd_flwr.config.documentation import as_markdown, as_toml
from fedkd_flwr.config.methods import METHODS
from fedkd_flwr.config.node_config import DATA_KEYS, config_at_node
from fedkd_flwr.config.schema import RunConfig, documentation, flat
from fedkd_flwr.config.tasks import TASKS
from fedkd_flwr.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent


def test_pyproject_and_the_docs_have_the_keys_of_the_code(defaults: dict[str, Any]) -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert as_toml("tool.flwr.app.config") in text, "run `make config`"
    assert flat(tomllib.loads(text)["tool"]["flwr"]["app"]["config"]) == defaults
    assert (ROOT / "docs" / "configuration.md").read_text() == as_markdown(), "run `make config`"
    assert flat(tomllib.loads(as_toml())) == defaults
    assert all(documentation().values())


@given(st.data())
def test_a_key_may_be_written_in_every_spelling(data: st.DataObject) -> None:
    """Flat or nested, as in run-config or in Python."""
    raw: dict[str, Any] = {}
    for key, value in RunConfig.defaults().items():
        group, _, name = key.rpartition(".")
        name = data.draw(st.sampled_from([name, name.replace("-", "_")]))
        if group and data.draw(st.booleans()):
            raw.setdefault(group, {})[name] = value
        else:
            raw[f"{group}.{name}" if group else name] = value
    assert RunConfig.parse(raw) == RunConfig()


def test_what_is_parsed_can_be_written_and_parsed_again(defaults: dict[str, Any]) -> None:
    config = RunConfig.parse(defaults)
    assert RunConfig.parse(config.as_run_config()) == config
    assert config.as_run_config() == defaults


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num-round": 3}, ["'num-round'", "unknown"]),
        ({"num-rounds": 0}, ["'num-rounds'", "0", "greater than or equal to 1"]),
        ({"num-rounds": "three"}, ["'num-rounds'", "'three'", "integer"]),
        ({"num-rounds": True}, ["'num-rounds'", "True", "integer"]),
        ({"train.learning-rate": -1.0}, ["'train.learning-rate'", "greater than 0"]),
        ({"train.learning-rate": float("nan")}, ["'train.learning-rate'", "finite"]),
        ({"method": "fedavg2"}, ["'method'", "'fedkd'"]),
        ({"data.dataset": "tweet"}, ["'data.dataset'", "tweets", "csv"]),
        ({"run.name": "a/b"}, ["'run.name'", "a/b"]),
        ({"codec.kind": "energy", "codec.energy-start": 0.99}, ["energy-end", "at least", "0.99"]),
        ({"codec.budget": "0x"}, ["'codec.budget'", "128x"]),
        ({"codec.budget": "tiny"}, ["'codec.budget'", "128x", "100kB", "5MB/run"]),
        ({"codec.bits": 7}, ["'codec.bits'", "7", "6", "8"]),
        ({"federation.fraction-train": 1.5}, ["'federation.fraction-train'", "less than or equal to 1"]),
        ({"task": "regression", "train.logit-adjustment": "always"}, ["'regression'", "logit-adjustment"]),
        ({"model.batch-norm": "local"}, ["batch-norm", "models of images", "'text-classification'"]),
        (
            {
                "task": "image-classification",
                "data.dataset": "imagefolder:x",
                "data.partition": "iid",
                "model.batch-norm": "local",
                "data.server-test-data": "imagefolder:y",
            },
            ["batch-norm 'local'", "without statistics", "empty data.server-test-data"],
        ),
        (
            {
                "task": "image-classification",
                "data.dataset": "imagefolder:x",
                "data.partition": "iid",
                "model.batch-norm": "local",
                "train.batch-size": 1,
            },
            ["batch-norm 'local'", "batch-size to 2 or more"],
        ),
        (
            {"data.text-pair-column": "text"},
            ["data.text-pair-column and data.text-column are both 'text'", "second text"],
        ),
        (
            {"data.text-pair-column": "b", "task": "token-classification", "data.dataset": "iob:x"},
            ["'token-classification'", "text-pair-column is 'b'", "leave it out", "'multi-label'"],
        ),
        (
            {
                "data.text-pair-column": "b",
                "task": "image-classification",
                "data.dataset": "imagefolder:x",
                "data.partition": "iid",
            },
            ["'image-classification'", "text-pair-column is 'b'", "leave it out", "'multi-label'"],
        ),
        (
            {"data.text-pair-column": "b", "task": "news-recommendation", "data.dataset": "mind:x"},
            ["'news-recommendation'", "text-pair-column is 'b'", "leave it out", "'multi-label'"],
        ),
        ({"train.class-weights": "0,1"}, ["'train.class-weights'", "a positive number for each of the labels"]),
        ({"train.class-weights": "1,5"}, ["class-weights has 2 numbers and data.labels 0 names"]),
        ({"train.class-weights": "1,5,2", "data.labels": "a,b"}, ["3 numbers and data.labels 2 names", "in the order"]),
        (
            {"train.class-weights": "balanced", "task": "regression"},
            ["'regression'", "no classes", "class-weights to 'none'"],
        ),
        (
            {"train.class-weights": "balanced", "task": "news-recommendation", "data.dataset": "mind:x"},
            ["'news-recommendation'", "no classes", "class-weights to 'none'"],
        ),
        ({"model.architecture": "nested", "distillation.hidden": 0.5}, ["distillation.hidden", "nested"]),
        ({"model.architecture": "nested", "model.pooling": "model"}, ["nested", "pooling"]),
        ({"seed": -1, "run.threads": -1}, ["'seed'", "'run.threads'"]),
    ],
)
def test_a_bad_value_is_one_line_that_names_key_value_and_what_is_allowed(
    defaults: dict[str, Any], changes: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.parse(defaults | changes)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_all_mistakes_are_named_at_once(defaults: dict[str, Any]) -> None:
    """Those of single keys, or else all rules that keys break together."""
    wrong = defaults | {"num-rounds": 0, "seed": "x", "round": 3}
    assert set(RunConfig.mistakes(wrong)) == {"num-rounds", "seed", "round"}
    with pytest.raises(ConfigError, match=r"'num-rounds'.*; .*'seed'.*; .*'round' is unknown"):
        RunConfig.parse(wrong)
    unfit = defaults | {
        "codec.kind": "energy",
        "codec.energy-start": 0.9,
        "codec.energy-end": 0.5,
        "model.shared-layers": 1,
    }
    assert set(RunConfig.mistakes(unfit)) == {""}
    with pytest.raises(ConfigError, match=r"energy-end must be at least .*; model.shared-layers is 1"):
        RunConfig.parse(unfit)
    assert RunConfig.mistakes(defaults) == {}


def test_the_defaults_of_the_code_are_those_of_the_app(defaults: dict[str, Any]) -> None:
    assert RunConfig().as_run_config() == defaults
    del (some := dict(defaults))["seed"]
    assert RunConfig.parse(some) == RunConfig()
    assert RunConfig(num_rounds=3) == RunConfig.parse(defaults | {"num-rounds": 3})


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_fixes_is_never_overwritten_silently(defaults: dict[str, Any], method: str) -> None:
    fixes = METHODS[method].fixes
    fixed = RunConfig.parse(defaults | {"method": method})
    assert fixes.items() <= fixed.as_run_config().items()
    assert RunConfig.parse(fixed.as_run_config()) == fixed
    others: dict[str, tuple[Any, ...]] = {
        "model.architecture": ("nested",),
        "distillation.loss": ("stable", "paper"),
        "codec.kind": ("rotated", "energy"),
        "codec.error-feedback": ("up",),
        "codec.bits": (8,),
    }
    for key, value in fixes.items():
        switch = ("always",) if value == "never" else (0.5,) if isinstance(value, float) else (1,)
        different = next(other for other in others.get(key, switch) if other != value)
        if different == defaults[key]:
            continue
        with pytest.raises(ConfigError, match=rf"{key} is {different!r} but method '{method}' fixes it to {value!r}"):
            RunConfig.parse(defaults | {"method": method, key: different})


@pytest.mark.parametrize("method", METHODS)
def test_a_methods_own_defaults_give_way_to_what_is_set(defaults: dict[str, Any], method: str) -> None:
    for key, value in METHODS[method].defaults.items():
        assert isinstance(value, int | float)
        for told, expected in ((defaults[key], value), (2 * value, 2 * value)):
            config = RunConfig.parse(defaults | {"method": method, key: told})
            assert config.as_run_config()[key] == expected
            assert RunConfig.parse(config.as_run_config()) == config


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"codec.kind": "dense", "codec.budget": "5kB"}, ["budget is '5kB'", "codec.kind 'dense'", "'budget'"]),
        ({"codec.energy-end": 1.0}, ["energy-end is 1.0", "codec.kind 'auto'", "'energy'"]),
        ({"data.dirichlet-alpha": 0.1}, ["dirichlet-alpha is 0.1", "partition 'natural'", "'dirichlet'"]),
        (
            {"model.architecture": "separate", "model.teacher-own-share": 1.0},
            ["teacher-own-share is 1.0", "'separate'", "'nested'"],
        ),
        ({"model.max-history": 5}, ["max-history is 5", "task 'text-classification'", "'news-recommendation'"]),
    ],
)
def test_a_key_that_would_change_nothing_is_refused(
    defaults: dict[str, Any], changes: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.parse(defaults | changes)
    for word in words:
        assert word in str(caught.value)


def test_a_nodes_owner_may_set_what_concerns_their_machine_only(defaults: dict[str, Any]) -> None:
    config = RunConfig.parse(defaults)
    own = config_at_node(config, {"partition-id": 1, "num-partitions": 2, "state-dir": "/state", "threads": 3})
    assert (own.run.state_dir, own.run.threads) == ("/state", 3)
    assert config_at_node(config, {"data-path": "a.csv", "name": "north"}) == config, (
        "the default state-dir is the node's"
    )
    every: dict[str, Any] = dict.fromkeys(DATA_KEYS, "1,5")
    every |= {"skip-unlabelled": True, "separator": ";", "encoding": "cp1252"}
    for task in TASKS:
        read = config_at_node(RunConfig.parse(defaults | {"task": task}), {"data-path": "a", **every})
        assert read.data.encoding == "cp1252" and not read.data.text_pair_column, (
            "keys that a task does not read are no mistake"
        )
    with pytest.raises(ConfigError, match=r"node-config key 'seed' is unknown: a node may set .*data-path"):
        config_at_node(config, {"seed": 5})
    with pytest.raises(ConfigError, match=r"'run\.threads' is 'many'"):
        config_at_node(config, {"threads": "many"})


def test_differences_name_what_changes_the_result(defaults: dict[str, Any]) -> None:
    config = RunConfig.parse(defaults)
    free = RunConfig.parse(defaults | {"num-rounds": 9, "run.resume": "x", "run.device": "cpu", "run.threads": 2})
    assert config.differences(free) == []
    assert config.differences(RunConfig.parse(defaults | {"train.batch-size": 8})) == [
        f"train.batch-size was {config.train.batch_size}, is 8"
    ]


@pytest.mark.parametrize("labels", [",".join(map(str, range(1001))), f"no,{101 * 'y'}", "no,y\tes"])
def test_labels_are_bounded(defaults: dict[str, Any], labels: str) -> None:
    """They travel, and stand in logs."""
    with pytest.raises(ConfigError, match=r"at most 1000 names of at most 100 printable characters") as caught:
        RunConfig.parse(defaults | {"data.labels": labels})
    assert len(str(caught.value)) < 300
    RunConfig.parse(defaults | {"data.labels": ",".join(map(str, range(1000)))})


def test_only_keys_that_there_are_can_be_changed() -> None:
    changed = RunConfig().changed(seed=3, train={"local_steps": 2})
    assert (changed.seed, changed.train.local_steps, changed.data) == (3, 2, RunConfig().data)
    for unknown in ({"local_steps": 2}, {"train": {"steps": 2}}):
        with pytest.raises(KeyError):
            RunConfig().changed(**unknown)
