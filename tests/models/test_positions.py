from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import save
from support.config import keys
from support.families import tiny_text_model

from fedkd_flwr.config.node_config import config_at_node
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import ConfigError
from fedkd_flwr.models.compatibility import check_models
from fedkd_flwr.models.positions import limit

LIMITS = {
    "bert": 80, "distilbert": 80, "gpt2": 80, "opt": 80, "xlnet": None, "roformer": 80, "t5 encoder": None,
    "roberta": 78, "mpnet": 78, "longformer": 78, "camembert": 78,
    "qwen3": 80, "modernbert": 80, "deberta-v2": None,
}  # fmt: skip


@pytest.mark.parametrize("family", LIMITS)
def test_the_most_tokens_are_as_many_as_the_model_reads(family: str, tmp_path: Path) -> None:
    """Rotary positions are made for a number, and go on."""
    reference, most = save(tiny_text_model(family), tmp_path), LIMITS[family]
    assert limit(reference, 200) == most
    assert limit(reference, 64) is None
    assert limit(reference, most or 500) is None
    if most and family not in ("qwen3", "modernbert"):
        assert limit(reference, most + 1) == most


@pytest.fixture
def check(defaults: dict[str, Any]) -> Callable[..., None]:
    apart = defaults | {"model.architecture": "separate", "model.student-layers": 2}
    return lambda node=None, **changes: check_models(
        config_at_node(RunConfig.parse(apart | keys(**changes)), node or {})
    )


def test_texts_longer_than_a_models_positions_are_refused(check: Callable[..., None], tmp_path: Path) -> None:
    bert, roberta = (save(tiny_text_model(name), tmp_path / name) for name in ("bert", "roberta"))
    told = "run-config key 'model.max-length' is {} but '{}' has positions for {} tokens: set it to 2 ... {}"
    for wanted, reference, most, models in (
        (200, bert, 80, {"teacher": bert}),
        (79, roberta, 78, {"teacher": roberta}),
        (79, roberta, 78, {"teacher": bert, "student": roberta}),
        (79, roberta, 78, {"teacher": bert, "node": {"teacher": roberta}}),
    ):
        with pytest.raises(ConfigError) as error:
            check(max_length=wanted, **models)
        assert str(error.value) == told.format(wanted, reference, most, most)
        check(**models | {"max_length": most})


def test_each_of_several_teachers_is_asked(defaults: dict[str, Any], tmp_path: Path) -> None:
    bert, roberta = (save(tiny_text_model(name), tmp_path / name) for name in ("bert", "roberta"))
    several = {"model.teacher": bert, "model.teachers": f"{bert},{roberta}", "model.student-layers": 2}
    check_models(RunConfig.parse(defaults | several | {"model.max-length": 78}))
    with pytest.raises(ConfigError, match=r"'model.max-length' is 80 but '.*roberta' has positions for 78 tokens"):
        check_models(RunConfig.parse(defaults | several | {"model.max-length": 80}))
