"""The tokens of a batch are read off one update where a node has no policy, and are not under the default one."""

from pathlib import Path
from typing import Any

import pytest
from support.federation import silo
from support.reading import CORNER, ISSUE, Vocabulary, attack, read, tokens_of, write_silo

from fedkd_flwr.config.policy import Policy
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import ConfigError
from fedkd_flwr.privacy.enforcement import violations

READ = 0.4
"""Distance from the span below which a token was read: dropout of a tenth leaves a third."""


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary()


@pytest.fixture(scope="module")
def silos(tmp_path_factory: pytest.TempPathFactory, defaults: dict[str, Any]) -> list[Path]:
    """Two files of 350 tweets."""
    paths = [tmp_path_factory.mktemp("texts") / f"{name}.csv" for name in ("east", "west")]
    for first, path in enumerate(paths):
        assert write_silo(path, RunConfig.parse(defaults), 350, first) == ["negative", "neutral", "positive"]
    return paths


@pytest.fixture(scope="module")
def run(defaults: dict[str, Any]) -> dict[str, Any]:
    return defaults | {"run.threads": 1, "data.labels": "negative,neutral,positive"}


def test_without_a_policy_the_texts_of_a_batch_can_be_read(
    run: dict[str, Any], silos: list[Path], tmp_path: Path, vocabulary: Vocabulary
) -> None:
    """Row 2, alive. A node's secret does not hinder it: neither order nor dropout need be known."""
    found = attack(run, silo("east", silos[0], tmp_path / "state", policy="off"), ISSUE)
    reading = read(vocabulary, found, found.tokens, tokens_of(silos[0]) - found.tokens, READ)

    assert reading.recovered > 0.9 and reading.wrong < 0.02


def test_the_same_run_is_refused_under_the_default_policy(
    run: dict[str, Any], silos: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"training\.max-learning-rate") as caught:
        attack(run, silo("east", silos[0], tmp_path / "state", policy=""), ISSUE)

    assert "training.min-grad-norm" in str(caught.value) and "update.min-compression" in str(caught.value)
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("further", "limit"),
    [
        ({"train.batch-size": 255}, "training.min-examples"),
        ({"model.max-length": 31}, "training.min-length"),
        ({"codec.budget": "127x"}, "update.min-compression"),
        ({"codec.kind": "rotated", "codec.bits": 1, "codec.budget": "384x"}, "update.min-compression"),
        ({"train.learning-rate": 0.051}, "training.max-learning-rate"),
        ({"train.max-grad-norm": 0.09}, "training.min-grad-norm"),
    ],
)
def test_the_corner_is_the_most_that_the_default_policy_allows(
    run: dict[str, Any], further: dict[str, Any], limit: str
) -> None:
    assert violations(Policy(), RunConfig.parse(run | CORNER)) == []
    assert limit in {violation.limit for violation in violations(Policy(), RunConfig.parse(run | CORNER | further))}


def test_what_the_default_policy_allows_at_most_is_read_no_better_than_from_other_texts(
    run: dict[str, Any], silos: list[Path], tmp_path: Path, vocabulary: Vocabulary
) -> None:
    """Some tokens are nearer to any span than others; those of one silo are no nearer to its own update."""
    own, other = (attack(run, silo(path.stem, path, tmp_path / path.stem, policy=""), CORNER) for path in silos)
    there, others = own.tokens - other.tokens, tokens_of(silos[1]) - tokens_of(silos[0])
    by_own, by_other = (read(vocabulary, found, there, others) for found in (own, other))

    assert read(vocabulary, own, there, others, READ).recovered < 0.02
    assert by_own.recovered < 0.06 and by_own.recovered - by_other.recovered < 0.05
