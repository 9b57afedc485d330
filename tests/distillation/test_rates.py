"""The local steps that a node thinks are still to come, in real federations: rates settle by them."""

from typing import Any

import pytest
from support.federation import Config, nodes
from support.loopback import LoopbackGrid, run_server

from fedkd_flwr.distillation import LocalTraining, TrainingSummary


@pytest.mark.parametrize(
    "steps",
    [
        {"local_steps": 3},
        {"local_steps": 3, "gradient_accumulation": 2},
        {"local_steps": 0, "batch_size": 7},
        {"local_steps": 0, "batch_size": 5, "gradient_accumulation": 3},
    ],
)
def test_each_round_begins_where_the_one_before_ended(
    run_config: Config, monkeypatch: pytest.MonkeyPatch, steps: dict[str, Any]
) -> None:
    rounds, spans = 3, list[tuple[float, float]]()
    train = LocalTraining.run

    def listen(training: LocalTraining, *arguments: Any) -> TrainingSummary:
        summary = train(training, *arguments)
        spans.append((training.left, training.left - summary.steps))
        return summary

    monkeypatch.setattr(LocalTraining, "run", listen)
    run_server(LoopbackGrid(run_config(num_rounds=rounds, **steps), nodes(2)))
    assert len(spans) == 2 * rounds
    for node in (spans[::2], spans[1::2]):
        assert [begins for begins, _ in node[1:]] == [ends for _, ends in node[:-1]]
        assert node[-1][1] == 0
