"""What the folder of a run says, without its models: whether it can go on, known before anything starts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import ConfigError, StateError

FORMAT = 6
"""Of the server's checkpoints."""

CONFIG, HISTORY, CHECKPOINTS, STATE = "config.json", "history.json", "checkpoints", "state.json"


@dataclass(frozen=True)
class PastRun:
    """A run that may go on.

    Attributes:
        folder: where its results are.
        config: its run-config.
        lineage: under which its nodes keep their states.
        round: the last finished one.
        partitions: among how many nodes the data set is shared out; 0: each has its own data.
        taken: the nodes that have trained.
        finished: nothing is left to do.
        ended_early: it has finished before its last round.
    """

    folder: Path
    config: Mapping[str, Any]
    lineage: str
    round: int
    partitions: int
    taken: tuple[str, ...]
    finished: bool
    ended_early: bool

    @classmethod
    def read(cls, folder: Path) -> "PastRun":
        """The run in a folder, as its newest checkpoint has it.

        Raises:
            StateError: there is no run, or none that can go on; says why and what to do.
        """
        try:
            config = _read(folder / CONFIG, f"{folder} holds no run to resume")
        except StateError as error:
            runs = sorted(path.parent.name for path in folder.parent.glob(f"*/{CONFIG}") if path.parent != folder)
            raise StateError(
                f"{error}; run.resume is the path of a run's folder where the ServerApp runs, the last runs in "
                f"{folder.parent} are: {', '.join(runs[-5:]) or 'none'}"
            ) from None
        newest = newest_checkpoint(folder)
        damaged = f"run.resume: checkpoint {newest} is damaged, remove it to go on from the one before"
        state = _read(newest / STATE, damaged)
        if state.get("format") != FORMAT:
            raise StateError(
                f"run.resume: {newest} has format {state.get('format')}, this version reads {FORMAT}: "
                "go on with the version of fedkd-flwr that wrote it, or start a new run"
            )
        try:
            history = json.loads((folder / HISTORY).read_text(encoding="utf-8"))
            finished = history["finished"] and len(history["rounds"]) == state["round"]
            ended_early = history.get("ended-early", False)
        except (OSError, ValueError, KeyError, TypeError):
            finished = ended_early = False
        try:
            return cls(
                folder=folder,
                config=config,
                lineage=state["lineage"],
                round=state["round"],
                partitions=state["partitions"] or 0,
                taken=tuple(state["taken"]),
                finished=finished,
                ended_early=ended_early,
            )
        except (KeyError, TypeError) as error:
            raise StateError(
                f"run.resume: checkpoint {newest} is damaged ({error}): remove it to go on from the one before"
            ) from None

    def parsed(self) -> RunConfig:
        """Its config, validated.

        Raises:
            StateError: this version does not understand it.
        """
        try:
            return RunConfig.parse(self.config)
        except ConfigError as error:
            raise StateError(
                f"run.resume: {self.folder / CONFIG} is not one of this version ({error}): "
                "go on with the version of fedkd-flwr that wrote it, or start a new run"
            ) from None

    def require(self, config: RunConfig) -> None:
        """Whether a run with this config is this run, going on.

        Raises:
            StateError: as `parsed`.
            ConfigError: it is another run, or there is nothing left to do; names the keys.
        """
        before = self.parsed()
        if differences := before.differences(config):
            raise ConfigError(
                f"{self.folder} can only be resumed as it was: {'; '.join(differences)}. Set these keys as they were"
            )
        if config.run.name not in ("", before.run.name, self.folder.name):
            raise ConfigError(
                f"run-config key 'run.name' is {config.run.name!r} but a resumed run keeps its folder, {self.folder}: "
                "leave run.name out"
            )
        if config.num_rounds < self.round:
            raise ConfigError(
                f"run-config key 'num-rounds' is {config.num_rounds} but {self.folder} has finished {self.round} "
                "rounds: set it to more"
            )
        if self.finished and self.ended_early and config.federation.early_stopping == before.federation.early_stopping:
            raise ConfigError(
                f"{self.folder} is finished: it ended early, after {self.round} rounds. To train it further, set "
                "federation.early-stopping to another number, or to 0"
            )
        if self.finished and config.num_rounds <= self.round:
            raise ConfigError(
                f"{self.folder} is finished, after round {self.round}: nothing is left to resume. "
                f"To train it further, set num-rounds to more than {self.round}"
            )


def newest_checkpoint(folder: Path) -> Path:
    """Of the run in a folder.

    Raises:
        StateError: there is none.
    """
    newest = max((folder / CHECKPOINTS).glob("[0-9]" * 8), default=None)
    if newest is None:
        raise StateError(
            f"run.resume: {folder} has no checkpoint to go on from: start a new run, under another run.name"
        )
    return newest


def _read(path: Path, problem: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StateError(f"{problem}: {path} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise StateError(f"{problem}: {path} is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise StateError(f"{problem}: {path} holds no keys and values")
    return found
