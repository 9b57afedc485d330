from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.federation import Config

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.models.build import build_pair, build_student
from fedkd_flwr.models.hub import load_tokenizer
from fedkd_flwr.models.model_card import About, model_card
from fedkd_flwr.models.readers import load_readers
from fedkd_flwr.models.text import build_classifier

LABELS = ("negative", "neutral", "positive")


@pytest.mark.parametrize("method", ["fedavg", "fedavg-lora", "fedavg-student"])
def test_a_whole_checkpoint_reads_its_own_tokens_whatever_the_student_of_other_methods(
    run_config: Config, tiny_bert: Path, checkpoints: Mapping[str, str], method: str
) -> None:
    """Also the model that travels, which its card names, is of that checkpoint: methods differ in one key."""
    config = RunConfig.parse(run_config(method=method, codec="auto", student=checkpoints["distilbert"]))
    expected = checkpoints["distilbert"] if method == "fedavg-student" else str(tiny_bert)
    readers = load_readers(config)
    assert readers.student.get_vocab() == load_tokenizer(expected).get_vocab() and readers.teacher is None
    assert build_student(config, LABELS).config.model_type == ("distilbert" if "student" in method else "bert")
    card = str(model_card(About(config, "student", 1), LABELS, False))
    assert f"student of {Path(expected).name}" in card


def rates(raw: dict[str, object]) -> Mapping[str, float]:
    return build_pair(RunConfig.parse(raw), LABELS).learning_rates


@pytest.mark.parametrize(
    ("changes", "student", "teacher"),
    [
        ({}, "shared.", "teacher."),
        ({"architecture": "nested"}, "shared.", "teacher."),
        ({"architecture": "nested", "shared_layers": 3}, "shared.", ("shared.teacher.", "teacher.")),
        ({"method": "fedavg-student"}, "shared.", ()),
        ({"method": "fedavg"}, (), "shared."),
        ({"method": "local"}, (), "teacher."),
    ],
)
def test_students_and_teachers_learn_at_rates_of_their_own(
    run_config: Config, changes: dict[str, object], student: str, teacher: str
) -> None:
    raw = run_config(learning_rate=1.0, teacher_learning_rate=10.0, head_learning_rate_factor=3.0, **changes)
    found = rates(raw)
    of = {who: {name for name in found if name.startswith(names)} for who, names in (("s", student), ("t", teacher))}
    of["s"] -= {name for name in found if name.startswith("shared.teacher.")}
    assert of["s"] | of["t"] | {name for name in found if "projections" in name} >= found.keys()
    for who, rate in (("s", 1.0), ("t", 10.0)):
        for name in of[who]:
            assert found[name] == rate * (3.0 if ".head." in name else 1.0), name


@pytest.mark.parametrize(
    ("changes", "read"),
    [
        ({"method": "fedkd"}, ["teacher", "student"]),
        ({"method": "fedavg"}, ["student"]),
        ({"method": "local"}, ["teacher"]),
    ],
)
def test_only_checkpoints_that_are_trained_are_read(
    run_config: Config, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], read: list[str]
) -> None:
    calls = []

    def counted(*arguments: Any, **keywords: Any) -> Any:
        calls.append(arguments)
        return build_classifier(*arguments, **keywords)

    monkeypatch.setattr("fedkd_flwr.models.build.build_classifier", counted)
    models = build_pair(RunConfig.parse(run_config(**changes)), LABELS)
    assert [name for name in ("teacher", "student") if getattr(models, name) is not None] == read
    assert len(calls) == len(read) and models.teacher_bytes
