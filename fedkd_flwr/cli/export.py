"""`fedkd export`: the models of a run as folders, from what the server keeps of it, whatever its end was."""

from collections.abc import Sequence
from pathlib import Path

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import ConfigError, StateError
from fedkd_flwr.server.best_round import BestRound
from fedkd_flwr.server.global_model import ServerModel
from fedkd_flwr.server.run_folder import read_state
from fedkd_flwr.tracking.past_run import PastRun

_MODELS = ("student", "teacher")


def export_run(
    run: Path, out: Path | None = None, round: int | None = None, label_shares: Sequence[float] = ()
) -> list[Path]:
    """Write `student`, and `teacher` where all of it is shared, into a folder; returns theirs.

    Args:
        run: folder of the run, finished or not.
        out: where to; None: into the run's folder. A model that was exported there before is replaced.
        round: one of those whose checkpoints are there; None: the best where the run keeps it, else the newest.
        label_shares: of the examples of each label where the models will be used; empty: those of all nodes.

    Raises:
        FedKDError: one line: there is no such run or round, its base checkpoint is not there, something else lies where
            the models belong, or the shares do not fit its labels.
    """
    config = RunConfig.parse({**PastRun.read(run).config, "data.server-test-data": ""})
    state = read_state(run)
    best = BestRound(config, state.history, run)
    state = best.of(state) if round in (None, best.number) else read_state(run, round)
    folder = out or run
    for place in (folder / name for name in _MODELS):
        if place.exists() and not (place / "config.json").is_file():
            raise StateError(f"{place} is there and is no exported model: remove it, or choose another --out")
    exported = ServerModel(config, state.labels, state.shared_head).export(state, folder, label_shares)
    if not exported:
        raise StateError(f"{run} shares no model (method {config.method!r}): each node has exported its own")
    return exported


def parse_label_shares(text: str) -> tuple[float, ...]:
    """The numbers of `0.2,0.8`.

    Raises:
        ConfigError: one is none, or does not lie between 0 and 1.
    """
    try:
        shares = tuple(float(share) for share in text.split(",")) if text else ()
    except ValueError:
        shares = (0.0,)
    if not all(0 < share < 1 for share in shares):
        raise ConfigError(
            f"--label-shares is {text!r}, expected a number between 0 and 1 for each label, such as 0.2,0.8"
        )
    return shares
