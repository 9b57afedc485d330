"""Pairs of texts are encoded as their tokenizer encodes them, and each model reads of them what it can."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from support.checkpoints import FAMILIES, LABELS, build
from transformers import BertConfig, BertTokenizer, RobertaConfig, RobertaModel

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.distillation import SEGMENTS, TEACHER, Nested, Single, TeacherStudent
from fedkd_flwr.errors import ConfigError
from fedkd_flwr.models.hub import load_tokenizer
from fedkd_flwr.models.readers import build_task
from fedkd_flwr.models.text import head
from fedkd_flwr.tasks.text_classification import TextClassification

TEXTS = ["a b c d e f g", "h", "a b", "c"]
PAIRS = ["i h g", "a b c d e f", "b a", "c"]


@pytest.fixture(scope="module")
def byte_pairs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """RoBERTa's, which joins texts by two separators and knows no segments."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizer

    folder = tmp_path_factory.mktemp("byte-pairs")
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(TEXTS, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    trained.save_model(str(folder))
    return RobertaTokenizer.from_pretrained(folder)


def pairs(texts: list[str] = TEXTS, others: list[str] = PAIRS) -> Dataset:
    return Dataset.from_dict({"text": texts, "pair": others, "label": [0, 1, 2, 0]})


def test_the_encoding_is_the_tokenizers_and_a_teacher_has_its_own(checkpoints: dict[str, str], byte_pairs: Any) -> None:
    own = load_tokenizer(checkpoints["bert"])
    for length in (7, 40):
        task = TextClassification(own, LABELS, length, byte_pairs)
        examples = task.encode(pairs())
        names = ["tokens", "length", "segments", "teacher-tokens", "label"]
        assert sorted(examples.column_names) == sorted(names)  # RoBERTa's has no segments
        expected = own(TEXTS, PAIRS, truncation=True, max_length=length)
        assert examples["tokens"].to_pylist() == expected["input_ids"]
        assert examples["segments"].to_pylist() == expected["token_type_ids"]
        assert examples["length"].to_pylist() == [len(row) for row in own(TEXTS, PAIRS)["input_ids"]]
        theirs = byte_pairs(TEXTS, PAIRS, truncation=True, max_length=length)["input_ids"]
        assert examples["teacher-tokens"].to_pylist() == theirs
        (batch,) = task.batches(examples, 9)
        padded = own(TEXTS, PAIRS, truncation=True, max_length=length, padding=True, return_tensors="pt")
        assert all(torch.equal(batch[name], tensor) for name, tensor in padded.items())
        assert f"{TEACHER}input_ids" in batch and f"{TEACHER}{SEGMENTS}" not in batch


def test_what_comes_first_matters_and_single_texts_are_read_as_before(checkpoints: dict[str, str]) -> None:
    task = TextClassification(load_tokenizer(checkpoints["bert"]), LABELS, 40)
    examples, swapped = task.encode(pairs()), task.encode(pairs(PAIRS, TEXTS))
    assert examples["tokens"].to_pylist()[:3] != swapped["tokens"].to_pylist()[:3]
    assert examples["tokens"][3] == swapped["tokens"][3]  # a pair of one text twice
    single = task.encode(pairs().remove_columns("pair"))
    assert sorted(single.column_names) == ["label", "length", "tokens"]
    (batch,) = task.batches(single, 9)
    assert batch.keys() == {"input_ids", "attention_mask", "labels"}


def test_a_pair_needs_room_for_both(checkpoints: dict[str, str]) -> None:
    tokenizer = load_tokenizer(checkpoints["bert"])
    assert TextClassification(tokenizer, LABELS, 5).encode(pairs())["tokens"].to_pylist()[1] == [2, 12, 3, 5, 3]
    with pytest.raises(ConfigError, match=r"'model.max-length' is 4 but a pair of texts takes 5 or more: raise it"):
        TextClassification(tokenizer, LABELS, 4).encode(pairs())


def test_models_are_given_segments_where_they_tell_them_apart(checkpoints: dict[str, str], tmp_path: Path) -> None:
    """One tokenizer for all; DistilBERT takes no segments, this RoBERTa has an embedding of one only."""
    config = FAMILIES["roberta"]().config
    one = RobertaModel(RobertaConfig(**config.to_dict() | {"type_vocab_size": 1}))
    one.save_pretrained(tmp_path / "one")
    BertTokenizer.from_pretrained(checkpoints["bert"]).save_pretrained(tmp_path / "one")
    task = TextClassification(load_tokenizer(checkpoints["bert"]), LABELS, 40)
    (batch,) = task.batches(task.encode(pairs()), 9)
    plain = {name: batch[name] for name in ("input_ids", "attention_mask")}
    full = plain | {SEGMENTS: batch[SEGMENTS]}
    bert, distilbert = (build(checkpoints[name]).eval() for name in ("bert", "distilbert"))
    roberta = build(str(tmp_path / "one")).eval()
    with torch.no_grad():
        assert not torch.allclose(bert(**full).logits, bert(**plain).logits, atol=1e-5)
        for model, read in ((bert, full), (distilbert, plain), (roberta, plain)):
            torch.testing.assert_close(Single(model, True).eval()(batch)[1].logits, model(**read).logits)
        for teacher, student, reads in ((bert, distilbert, (full, plain)), (distilbert, bert, (plain, full))):
            outputs = TeacherStudent(teacher, student, hidden=False).eval()(batch)
            torch.testing.assert_close(outputs[0].logits, teacher(**reads[0]).logits)
            torch.testing.assert_close(outputs[1].logits, student(**reads[1]).logits)
        deep, small = build(checkpoints["bert"], num_layers=3), build(checkpoints["bert"])
        nested = Nested(deep, small, head(small)).eval()
        outputs = nested(batch)
        torch.testing.assert_close(outputs[0].logits, deep(**full).logits)
        torch.testing.assert_close(outputs[1].logits, small(**full).logits)


def test_a_teacher_whose_tokenizer_names_no_segments_reads_pairs_as_it_will_be_used(
    checkpoints: dict[str, str], tmp_path: Path, defaults: dict[str, Any]
) -> None:
    """Of single texts such a tokenizer reads alike."""
    load_tokenizer(checkpoints["bert"]).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings["model_input_names"] = ["input_ids", "attention_mask"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    BertConfig().save_pretrained(tmp_path)
    own = {
        "model.teacher": str(tmp_path),
        "model.student": checkpoints["bert"],
        "model.architecture": "separate",
        "data.text-column": "a",
    }
    for column, same in (("", True), ("b", False)):
        task = build_task(RunConfig.parse(defaults | own | {"data.text-pair-column": column}), LABELS)
        assert (task.teacher_processor is None) == same
