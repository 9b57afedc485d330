from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.federation import nodes
from support.loopback import LoopbackGrid, run_server
from support.reference import reference_run, trainable

from fedkd_flwr.client.state import NodeStore
from fedkd_flwr.config.schema import RunConfig


@pytest.mark.parametrize("rounds", [1, 3])
def test_the_system_is_fedkd_in_plain_loops(run_config: Callable[..., dict[str, Any]], rounds: int) -> None:
    """Student and every teacher agree with the reference after real messages, codec bytes and states on disk."""
    weights = dict.fromkeys(("teacher_kl", "student_kl", "hidden", "attention"), 1.0)
    raw = run_config(
        num_rounds=rounds,
        learning_rate=1e-3,
        teacher_learning_rate=5e-4,
        energy_start=0.8,
        energy_end=0.95,
        device="cpu",
        **weights,
    )
    partitions = 3
    folder = run_server(LoopbackGrid(raw, nodes(partitions)))

    config = RunConfig.parse(raw)
    student, references = reference_run(config, partitions)
    newest = max((folder / "checkpoints").iterdir())
    real = load_file(newest / "student.safetensors")
    start = dict(trainable(references[0].student).items())
    assert real.keys() == student.keys() == start.keys()
    for name, expected in student.items():
        assert torch.allclose(real[name], expected, atol=2e-5), name

    (first,) = (folder.parent.parent / "state").glob("*/partition-0")
    lineage = first.parent
    for partition, node in enumerate(references):
        state = NodeStore(lineage.parent, lineage.name, f"partition-{partition}").load()
        assert state is not None
        for name, parameter in trainable(node.teacher).items():
            assert torch.allclose(state.private[f"teacher.{name}"], parameter, atol=2e-5), name
        for number, projection in enumerate(node.maps):
            assert torch.allclose(state.private[f"projections.{number}.weight"], projection, atol=2e-5)
