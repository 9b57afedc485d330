"""Federations of two nodes with models of families whose layers are laid out in ways of their own."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.families import tiny_text_model
from support.federation import Config, history, nodes
from support.loopback import LoopbackGrid, run_server

from fedkd_flwr.models.export import load_classifier
from fedkd_flwr.models.hub import load_tokenizer

FEDERATIONS: dict[str, dict[str, Any]] = {
    "modernbert": {"architecture": "separate"},
    "gemma3_text": {"architecture": "nested"},
    "qwen3": {"architecture": "separate"},
    "albert": {"architecture": "separate"},
    "longformer": {"architecture": "separate"},
    "t5 encoder": {"architecture": "nested"},
    "gpt2": {"architecture": "separate", "lora_rank": 2},
}


@pytest.mark.parametrize("family", FEDERATIONS)
def test_a_family_trains_and_leaves_what_can_be_read(
    family: str, run_config: Config, tiny_bert: Path, tmp_path: Path
) -> None:
    """GPT-2, without a padding token, teaches a BERT by adapters."""
    tokenizer, folder = load_tokenizer(str(tiny_bert)), tmp_path / "model"
    padding = {"pad_token_id": None} if family == "gpt2" else {}
    tiny_text_model(family, vocab_size=len(tokenizer), **padding).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    student = {"student": str(tiny_bert)} if family == "gpt2" else {}
    budget = {"codec": "budget", "budget": "4x", "num_rounds": 1, "local_steps": 2}
    grid = LoopbackGrid(run_config(teacher=str(folder), **budget, **student, **FEDERATIONS[family]), nodes(2))
    run = run_server(grid)
    assert len(history(run)["rounds"]) == 1
    inputs = tokenizer(["a delayed flight", "thanks"], padding=True, return_tensors="pt")
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    teachers = list((tmp_path / "state").glob("*/*/teacher"))
    assert len(teachers) == 2
    for exported, depth in ((run / "student", 2), *((teacher, 4) for teacher in teachers)):
        model = load_classifier(exported)
        assert model.config.num_hidden_layers == depth
        assert model(**inputs).logits.isfinite().all()
        described = json.loads((exported / "config.json").read_text())
        assert all(len(described[key]) == depth for key in ("layer_types", "attention_window") if described.get(key))
