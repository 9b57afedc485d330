import re
from pathlib import Path
from typing import Any

import pytest

from fedkd_flwr.config.owner import DATA_KEYS
from fedkd_flwr.config.schema import METHODS, RunConfig
from fedkd_flwr.errors import ConfigError
from fedkd_flwr.tasks.metrics import METRICS

ROOT = Path(__file__).parent.parent.parent


def test_pyproject_declares_every_key_with_a_comment(defaults: dict[str, Any]) -> None:
    fields = {field.alias for field in RunConfig.model_fields.values()} | {
        name.replace("_", "-") for name in RunConfig.model_fields
    }
    assert set(defaults) == {name for name in fields if name}
    text = (ROOT / "pyproject.toml").read_text().partition("[tool.flwr.app.config]")[2].partition("\n[tool")[0]
    for key in defaults:
        assert re.search(rf"^{key} = \S.*\s# \S", text, re.MULTILINE), f"{key} has no comment"


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
        ({"learning-rate": -1.0}, ["'learning-rate'", "greater than 0"]),
        ({"learning-rate": float("nan")}, ["'learning-rate'", "finite"]),
        ({"method": "fedavg2"}, ["'method'", "'fedkd'"]),
        ({"dataset": "tweet"}, ["'dataset'", "tweets", "csv"]),
        ({"run-name": "a/b"}, ["'run-name'", "a/b"]),
        ({"codec": "energy", "energy-start": 0.99}, ["energy-end", "at least", "0.99"]),
        ({"budget": "0x"}, ["'budget'", "128x"]),
        ({"budget": "tiny"}, ["'budget'", "128x", "100kB", "5MB/run"]),
        ({"bits": 7}, ["'bits'", "7", "6", "8"]),
        ({"fraction-train": 1.5}, ["'fraction-train'", "less than or equal to 1"]),
        ({"task": "regression", "logit-adjustment": "always"}, ["'regression'", "logit-adjustment"]),
        ({"batch-norm": "local"}, ["batch-norm", "models of images", "'text-classification'"]),
        (
            {
                "task": "image-classification",
                "dataset": "imagefolder:x",
                "partition": "iid",
                "batch-norm": "local",
                "server-test-data": "imagefolder:y",
            },
            ["batch-norm 'local'", "without statistics", "empty server-test-data"],
        ),
        (
            {
                "task": "image-classification",
                "dataset": "imagefolder:x",
                "partition": "iid",
                "batch-norm": "local",
                "batch-size": 1,
            },
            ["batch-norm 'local'", "batch-size to 2 or more"],
        ),
        ({"text-pair-column": "text"}, ["text-pair-column and text-column are both 'text'", "second text"]),
        (
            {"text-pair-column": "b", "task": "token-classification", "dataset": "iob:x"},
            ["'token-classification'", "no pairs", "empty text-pair-column"],
        ),
        (
            {"text-pair-column": "b", "task": "image-classification", "dataset": "imagefolder:x", "partition": "iid"},
            ["'image-classification'", "no pairs", "empty text-pair-column"],
        ),
        (
            {"text-pair-column": "b", "task": "news-recommendation", "dataset": "mind:x"},
            ["'news-recommendation'", "no pairs", "empty text-pair-column"],
        ),
        ({"class-weights": "0,1"}, ["'class-weights'", "a positive number for each of the labels"]),
        ({"class-weights": "1,5"}, ["class-weights has 2 numbers and labels 0 names"]),
        ({"class-weights": "1,5,2", "labels": "a,b"}, ["3 numbers and labels 2 names", "in the order"]),
        (
            {"class-weights": "balanced", "task": "regression"},
            ["'regression'", "no classes", "class-weights to 'none'"],
        ),
        (
            {"class-weights": "balanced", "task": "news-recommendation", "dataset": "mind:x"},
            ["'news-recommendation'", "no classes", "class-weights to 'none'"],
        ),
        ({"architecture": "nested", "hidden-weight": 0.5}, ["hidden-weight", "nested"]),
        ({"architecture": "nested", "pooling": "model"}, ["nested", "pooling"]),
        ({"seed": -1, "threads": -1}, ["'seed'", "'threads'"]),
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
    unfit = defaults | {"codec": "energy", "energy-start": 0.9, "energy-end": 0.5, "shared-layers": 1}
    assert set(RunConfig.mistakes(unfit)) == {""}
    with pytest.raises(ConfigError, match=r"energy-end must be at least .*; shared-layers is 1"):
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
    other = {"architecture": "nested", "loss": "stable", "codec": "rotated", "error-feedback": "up"}
    for key, value in fixes.items():
        if isinstance(value, str):
            different = "always" if value == "never" else other[key]
        else:
            different = 8 if key == "bits" else 0.5 if isinstance(value, float) else 1
        if different == defaults[key]:
            continue
        with pytest.raises(ConfigError, match=rf"{key} is {different!r} but method '{method}' fixes it to {value!r}"):
            RunConfig.parse(defaults | {"method": method, key: different})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"codec": "dense", "budget": "5kB"}, ["budget is '5kB'", "codec 'dense'", "'budget'"]),
        ({"energy-end": 1.0}, ["energy-end is 1.0", "codec 'auto'", "'energy'"]),
        ({"dirichlet-alpha": 0.1}, ["dirichlet-alpha is 0.1", "partition 'natural'", "'dirichlet'"]),
        ({"local-epochs": 2}, ["local-epochs is 2", "local-steps 8", "0"]),
        (
            {"architecture": "separate", "teacher-own-share": 1.0},
            ["teacher-own-share is 1.0", "'separate'", "'nested'"],
        ),
        ({"max-history": 5}, ["max-history is 5", "task 'text-classification'", "'news-recommendation'"]),
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
    own = config.for_node({"partition-id": 1, "num-partitions": 2, "state-dir": "/state", "threads": 3})
    assert (own.state_dir, own.threads) == ("/state", 3)
    assert config.for_node({"data-path": "a.csv", "name": "north"}) == config, "the default state-dir is the node's"
    every: dict[str, Any] = dict.fromkeys(DATA_KEYS, "1,5")
    every |= {"skip-unlabelled": True, "separator": ";", "encoding": "cp1252"}
    for task in METRICS:
        read = RunConfig.parse(defaults | {"task": task, "dataset": "tweets"}).for_node({"data-path": "a", **every})
        assert read.encoding == "cp1252" and not read.text_pair_column, "keys that a task does not read are no mistake"
    with pytest.raises(ConfigError, match=r"node-config key 'seed' is unknown: a node may set .*data-path"):
        config.for_node({"seed": 5})
    with pytest.raises(ConfigError, match="'threads' is 'many'"):
        config.for_node({"threads": "many"})


def test_differences_name_what_changes_the_result(defaults: dict[str, Any]) -> None:
    config = RunConfig.parse(defaults)
    free = RunConfig.parse(defaults | {"num-rounds": 9, "resume": "x", "device": "cpu", "threads": 2})
    assert config.differences(free) == []
    assert config.differences(RunConfig.parse(defaults | {"batch-size": 8})) == [
        f"batch-size was {config.batch_size}, is 8"
    ]


@pytest.mark.parametrize("labels", [",".join(map(str, range(1001))), f"no,{101 * 'y'}", "no,y\tes"])
def test_labels_are_bounded(defaults: dict[str, Any], labels: str) -> None:
    """They travel, and stand in logs."""
    with pytest.raises(ConfigError, match=r"at most 1000 names of at most 100 printable characters") as caught:
        RunConfig.parse(defaults | {"labels": labels})
    assert len(str(caught.value)) < 300
    RunConfig.parse(defaults | {"labels": ",".join(map(str, range(1000)))})
