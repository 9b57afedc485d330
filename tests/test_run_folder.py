"""A server that is killed while it writes goes on from a whole checkpoint, with whole rows in its ledger."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from killed import killed_at

from fedkd_flwr.config import RunConfig
from fedkd_flwr.global_student import GlobalStudent
from fedkd_flwr.history import History, RoundEntry
from fedkd_flwr.ledger import TrafficRow
from fedkd_flwr.run_folder import RunFolder, RunState


def after(round: int) -> RunState:
    student = GlobalStudent({"w": torch.full((3, 2), float(round))}, round, [b"update"], {"w": torch.ones(3, 2)})
    history = History(rounds=[RoundEntry(round=n) for n in range(1, round + 1)])
    return RunState("lineage", round, ("no", "yes"), student, history, taken={"north": round})


def finish_round(folder: RunFolder, round: int, config: RunConfig) -> None:
    folder.ledger.add([TrafficRow(round, "north", "up", f"layer {n}", "dense", 0, 32, 24, 1.0) for n in range(9)])
    folder.checkpoint(after(round), config)


def test_a_kill_at_any_step_leaves_the_old_checkpoint_or_the_new_one(
    run_config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    config = RunConfig.parse(run_config())
    outcomes = []
    for step in range(1, 200):
        path = tmp_path / str(step)
        folder = RunFolder.create(path, config)
        finish_round(folder, 1, config)
        killed = killed_at(step, partial(finish_round, folder, 2, config))

        folder, state = RunFolder.resume(path, config)
        assert state.student is not None and len(state.history.rounds) == state.round
        assert float(state.student.tensors["w"][0, 0]) == state.student.version == state.taken["north"] == state.round
        assert folder.ledger.total(1, "up") == 9 * 24
        assert state.round == 1 or folder.ledger.total(2, "up") == 9 * 24
        outcomes.append(state.round)
        finish_round(folder, 3, config)
        assert RunFolder.resume(path, RunConfig.parse(run_config(num_rounds=3)))[1].round == 3
        assert len(list((path / "checkpoints").iterdir())) == 2, "leftovers are swept by the next write"
        if not killed:
            break
    assert not killed, "the write has more steps than were tried"
    assert sorted(outcomes) == outcomes and set(outcomes) == {1, 2}
