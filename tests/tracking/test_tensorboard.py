"""TensorBoard shows the numbers of a run's history, each once, also where the run was resumed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.federation import nodes
from support.loopback import LoopbackGrid, run_server

from fedkd_flwr.tracking.finished_run import Run
from fedkd_flwr.tracking.history import History
from fedkd_flwr.tracking.loggers import Loggers

pytest.importorskip("tensorboard")


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> round and value of each of its events."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_events_are_the_numbers_of_the_history(run_config: Callable[..., dict[str, Any]]) -> None:
    raw = run_config()
    folder = run_server(LoopbackGrid(raw, nodes(2)))
    run_server(LoopbackGrid(raw | {"run.resume": str(folder), "num-rounds": 3}, nodes(2)))

    found, table = events(folder), Run.load(folder).history.to_pandas()
    assert {tag.replace("/", "_") for tag in found} == set(table.columns)
    for tag, shown in found.items():
        column = table[tag.replace("/", "_")].dropna()
        assert [step for step, _ in shown] == column.index.tolist(), tag
        assert [value for _, value in shown] == pytest.approx(column.tolist(), rel=1e-6)


def test_a_logger_that_fails_is_left_out_and_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    class Full:
        def log(self, history: History) -> None:
            raise OSError("No space\nleft")

    loggers = Loggers([Full()])
    for _ in range(2):
        loggers.log(History())
    (line,) = [record.message for record in caplog.records]
    assert "Full ends: OSError: No space left" in line
