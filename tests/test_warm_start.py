"""Encodings that start from the last round's directions, through the real apps."""

from pathlib import Path

import pytest
import torch
from federation import Config, assert_same_models, nodes
from loopback import LoopbackGrid, run_server

from fedkd_flwr.codec import EncodedUpdate, UpdateCodec

Tensors = dict[str, torch.Tensor]
BUDGET = {"codec": "budget", "budget": "96x", "error_feedback": "both", "student_layers": 1}


@pytest.mark.parametrize("warm", [True, False])
def test_each_encoding_starts_where_the_last_one_led(
    run_config: Config, wide_bert: Path, monkeypatch: pytest.MonkeyPatch, warm: bool
) -> None:
    """Two nodes and the server each go on from their own."""
    encode = UpdateCodec.encode
    calls: list[tuple[Tensors, Tensors]] = []

    def spy(
        codec: UpdateCodec,
        update: Tensors,
        generator: torch.Generator | None = None,
        spans: Tensors | None = None,
        bases: Tensors | None = None,
    ) -> EncodedUpdate:
        encoded = encode(codec, update, generator, spans, bases)
        calls.append((dict(bases or {}), dict(encoded.bases)))
        return encoded

    monkeypatch.setattr(UpdateCodec, "encode", spy)
    run_server(LoopbackGrid(run_config(teacher=str(wide_bert), num_rounds=3, warm_start=warm, **BUDGET), nodes(2)))
    assert len(calls) == 3 * 3
    assert [started for started, _ in calls[:3]] == [{}, {}, {}]
    for (started, _), (_, found) in zip(calls[3:], calls, strict=False):
        assert found
        assert started.keys() == (found.keys() if warm else set())
        assert all(torch.equal(started[name], found[name]) for name in started)


def test_a_run_that_goes_on_starts_from_them_too(run_config: Config, wide_bert: Path) -> None:
    changes = {"teacher": str(wide_bert), "warm_start": True, **BUDGET}
    straight = run_server(LoopbackGrid(run_config(num_rounds=3, run_name="straight", **changes), nodes(2)))
    folder = run_server(LoopbackGrid(run_config(num_rounds=2, **changes), nodes(2)))
    run_server(LoopbackGrid(run_config(num_rounds=3, resume=str(folder), **changes), nodes(2)))
    assert_same_models(folder, straight)
