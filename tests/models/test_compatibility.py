from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import FAMILIES, WORDS, save
from support.config import keys

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import ConfigError, ModelError
from fedkd_flwr.models.compatibility import check_models
from fedkd_flwr.models.hub import depth, resolve


@pytest.fixture
def check(defaults: dict[str, Any]) -> Callable[..., None]:
    """check_models on the default run, of two models, with some keys changed."""
    apart = defaults | {"model.architecture": "separate", "model.max-length": 32}
    return lambda **changes: check_models(RunConfig.parse(apart | keys(**changes)))


def test_the_bundled_model_is_six_layers_deep(check: Callable[..., None]) -> None:
    assert depth("minilm-l6") == 6
    assert resolve(resolve("minilm-l6")) == resolve("minilm-l6")
    assert resolve("google-bert/bert-base-uncased") == "google-bert/bert-base-uncased"
    check()


def test_a_student_deeper_than_its_teacher_is_refused(checkpoints: dict[str, str], check: Callable[..., None]) -> None:
    for names in ({"teacher": "bert"}, {"teacher": "roberta", "student": "bert"}):
        models = {role: checkpoints[family] for role, family in names.items()}
        with pytest.raises(ConfigError, match=r"'model.student-layers' is 4 but .* has 3 layers: set it to 1 ... 3"):
            check(student_layers=4, **models)
        check(student_layers=3, **models)
    with pytest.raises(ConfigError, match=r"'model.student-layers' is 5 but .*bert.* has 3 layers"):
        check(student_layers=5, teacher=checkpoints["bert"], student="minilm-l6")


def test_attention_of_models_of_two_vocabularies_is_not_matched(
    checkpoints: dict[str, str], tmp_path: Path, check: Callable[..., None]
) -> None:
    other = save(FAMILIES["bert"](), tmp_path, [*WORDS[:-1], "z"])
    check(teacher=checkpoints["bert"], student=other)
    with pytest.raises(ModelError, match=f"teacher .* reads other tokens than student '{other}', attention cannot"):
        check(teacher=checkpoints["bert"], student=other, attention=1.0)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("./none", "there is no folder .*none, correct the path"),
        ("/none", "there is no folder /none"),
        ("~/none", "there is no folder .*none"),
        ("nobody/nothing", "'nobody/nothing' cannot be read: .*minilm-l6, a local folder or a Hugging Face id"),
    ],
)
def test_a_model_that_is_not_there_is_named_in_one_line(
    reference: str, message: str, check: Callable[..., None]
) -> None:
    with pytest.raises(ModelError, match=message) as error:
        check(teacher=reference)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_without_a_tokenizer_is_refused(family: str, tmp_path: Path, check: Callable[..., None]) -> None:
    FAMILIES[family]().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=f"model '{tmp_path}' (has no tokenizer: put its|cannot be read)"):
        check(teacher=str(tmp_path))


@pytest.mark.parametrize("lost", ["config.json", "tokenizer.json"])
def test_an_incomplete_folder_is_refused_before_any_weights_are_read(
    lost: str, tmp_path: Path, check: Callable[..., None]
) -> None:
    save(FAMILIES["bert"](), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    check(teacher=str(tmp_path))
    (tmp_path / lost).write_text("{")
    with pytest.raises(ModelError, match=f"model '{tmp_path}' cannot be read"):
        check(teacher=str(tmp_path))
