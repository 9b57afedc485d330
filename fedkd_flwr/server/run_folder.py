"""What the server keeps of a run: config, history, byte ledger, checkpoints, the exported student.

RUN/config.json           the run-config
RUN/history.json          scores, bytes and seconds of each round
RUN/traffic.csv           a row for each round, node, direction and tensor
RUN/report.html           all of it to look at, written at the end; beside it TensorBoard's events
RUN/checkpoints/00000003/ the third state of the server: student, newest updates, residual, history
RUN/best/                 the student of the best round so far, where the run looks for one
RUN/student/, teacher/    what is exported: the student (its encoder where nodes keep heads of their own), and the
                          teacher where all of its layers are shared
RUN/nodes/TITLE           leads to the models of a node on this machine, by the title of its data
"""

import errno
import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import ConfigError, StateError
from fedkd_flwr.runtime.disk import flush, remove_marked, write_json
from fedkd_flwr.server.global_student import GlobalStudent
from fedkd_flwr.tracking.history import History
from fedkd_flwr.tracking.loggers import Loggers
from fedkd_flwr.tracking.node_links import link_nodes
from fedkd_flwr.tracking.past_run import CHECKPOINTS, CONFIG, FORMAT, HISTORY, STATE, PastRun, newest_checkpoint
from fedkd_flwr.tracking.report import try_to_write_report
from fedkd_flwr.tracking.run_names import fresh_run_name
from fedkd_flwr.tracking.traffic_log import TRAFFIC, Ledger

RUNS_DIR = "FEDKD_RUNS_DIR"
"""The environment variable by which the owner of a server says where all its runs lie."""

_UPDATES = "updates.bin"
_STUDENT, _RESIDUAL = "student.safetensors", "residual.safetensors"


@dataclass
class RunState:
    """The server between two rounds: all that a resumed run needs.

    Attributes:
        lineage: under which the nodes keep their states.
        round: the last finished one.
        labels: of the task; empty until the first nodes have joined, and where each node has its own.
        student: None until the first nodes have joined.
        teacher_bytes: of sending a teacher once, dense; of the first node.
        partitions: among how many nodes the data set is shared out; None until a node has joined.
        taken: node -> the last round of which its update was taken.
        shared_head: whether the student's head is shared; decided when the first nodes have joined.
        label_shares: of the examples of all these nodes, to which heads are adjusted and by which classes are balanced;
            empty: neither.
    """

    lineage: str
    round: int
    labels: tuple[str, ...]
    student: GlobalStudent | None
    history: History
    teacher_bytes: int = 0
    partitions: int | None = None
    taken: dict[str, int] = field(default_factory=dict)
    shared_head: bool = True
    label_shares: tuple[float, ...] = ()


class RunFolder:
    """The folder of one run, and its ledger; on the disk from when its first nodes have joined."""

    def __init__(self, path: Path, ledger: Ledger | None = None) -> None:
        self.path = path
        self._ledger = ledger
        self._loggers = Loggers()

    @property
    def ledger(self) -> Ledger:
        """All that travelled; from when the first nodes have joined."""
        assert self._ledger is not None, "no node has joined yet"
        return self._ledger

    @classmethod
    def new(cls, path: Path) -> "RunFolder":
        """Where a run will leave its results; nothing is written yet.

        Raises:
            StateError: the folder exists and is not empty, or could not be written.
        """
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise _taken(path)
        above = next(parent for parent in path.parents if parent.exists())
        if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
            raise StateError(f"cannot write run folder {path}: {above} refuses; set run.runs-dir to another folder")
        return cls(path)

    @classmethod
    def resume(cls, path: Path, config: RunConfig) -> tuple["RunFolder", RunState]:
        """The folder and newest checkpoint of a run that `config` continues; nothing is written yet.

        Raises:
            StateError: there is no such run, or its checkpoint is damaged.
            ConfigError: the config would make it another run, or it is finished; names the keys.
        """
        PastRun.read(path).require(config)
        return cls(path, Ledger.load(path / TRAFFIC)), read_state(path)

    def begin(self, state: RunState, config: RunConfig) -> None:
        """Publish a run whose nodes have joined: config and history, of a new run a whole folder that can be resumed.

        Raises:
            StateError: another run has taken the folder meanwhile, or the disk refuses.
        """
        if self._ledger is not None:
            write_json(self.path / CONFIG, config.as_run_config() | {"run.resume": ""})
            self._loggers = Loggers.of(self.path)
            self.write_history(state, config)
            return
        hidden = RunFolder(self.path.with_name(f".{self.path.name}.new-{state.lineage}"))
        try:
            shutil.rmtree(hidden.path, ignore_errors=True)
            hidden.path.mkdir(parents=True)
            write_json(hidden.path / CONFIG, config.as_run_config())
            Ledger.create(hidden.path / TRAFFIC)
            hidden.checkpoint(state, config)
            hidden.path.rename(self.path)
        except (OSError, StateError) as error:
            shutil.rmtree(hidden.path, ignore_errors=True)
            if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise _taken(self.path) from None
            raise StateError(
                f"cannot write run folder {self.path}: {error}; set run.runs-dir to another folder"
            ) from None
        flush(self.path.parent)
        self._ledger = Ledger.load(self.path / TRAFFIC)
        self._loggers = Loggers.of(self.path)

    def checkpoint(self, state: RunState, config: RunConfig) -> None:
        """Keep the server as it is after a round, and publish the round in history.json.

        Raises:
            StateError: the disk refuses; the checkpoint before is still there.
        """
        assert state.student is not None
        try:
            parent = self.path / CHECKPOINTS
            fresh = parent / ".new"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            save_file(dict(state.student.tensors), fresh / _STUDENT)
            save_file(dict(state.student.residual), fresh / _RESIDUAL)
            (fresh / _UPDATES).write_bytes(b"".join(state.student.updates))
            body = {
                "format": FORMAT,
                "lineage": state.lineage,
                "round": state.round,
                "labels": state.labels,
                "version": state.student.version,
                "digest": state.student.digest,
                "updates": [len(update) for update in state.student.updates],
                "teacher-bytes": state.teacher_bytes,
                "partitions": state.partitions,
                "taken": state.taken,
                "shared-head": state.shared_head,
                "label-shares": state.label_shares,
                "history": state.history.as_dict(),
            }
            write_json(fresh / STATE, body)
            for path in [*fresh.iterdir(), fresh]:
                flush(path)
            newest = max(parent.glob("[0-9]" * 8), default=None)
            number = int(newest.name) + 1 if newest else 1
            fresh.rename(parent / f"{number:08d}")
            flush(parent)
            self.write_history(state, config)
            kept = sorted(path.parent for path in parent.glob(f"{'[0-9]' * 8}/{STATE}"))[-config.run.keep_checkpoints :]
            for old in parent.glob("[0-9]" * 8):
                if old not in kept:
                    remove_marked(old, STATE)
        except (OSError, SafetensorError) as error:
            raise StateError(
                f"cannot write checkpoint of round {state.round} to {self.path}: {error}; "
                f"free space, then set run.resume to {self.path}"
            ) from None

    def finish(self, state: RunState, config: RunConfig) -> None:
        """Say in history.json that nothing is left to do."""
        self.write_history(state, config, finished=True)

    def write_history(self, state: RunState, config: RunConfig, finished: bool = False) -> None:
        """Replace history.json, and lead to the models of nodes on this machine."""
        titles = {node: data["title"] for node, data in state.history.data.items()}
        link_nodes(self.path, Path(config.run.state_dir).absolute() / state.lineage, titles)
        body = {
            "finished": finished,
            "config": config.as_run_config(),
            "lineage": state.lineage,
            "labels": state.labels,
            "shared-head": state.shared_head,
            "label-shares": state.label_shares,
            "partitions": state.partitions,
            "sizes": {
                "teacher-bytes": state.teacher_bytes,
                "student-bytes": state.student.student_bytes if state.student else 0,
            },
            **state.history.as_dict(),
        }
        write_json(self.path / HISTORY, body)
        self._loggers.log(state.history)

    def close(self) -> None:
        """Leave the run for people to look at, however it ended; nothing where no node has joined."""
        if self._ledger is not None:
            try_to_write_report(self.path)


def open_run(config: RunConfig) -> tuple[RunFolder, RunState]:
    """The folder and state from which the server starts: a new run's, or the one that `run.resume` names.

    Where the server's owner has set the variable FEDKD_RUNS_DIR all runs lie there, whatever a run-config says.

    Raises:
        StateError, ConfigError: as `RunFolder.new` and `RunFolder.resume`; or the run to resume lies elsewhere.
    """
    owners = os.environ.get(RUNS_DIR, "")
    if config.run.resume:
        run = Path(config.run.resume).absolute()
        if owners and run.resolve().parent != Path(owners).resolve():
            raise ConfigError(
                f"run.resume is {config.run.resume!r}, but the runs of this server lie in {owners}: name one there"
            )
        return RunFolder.resume(run, config)
    name = config.run.name or fresh_run_name()
    folder = RunFolder.new(Path(owners or config.run.runs_dir).absolute() / name)
    return folder, RunState(uuid4().hex[:16], 0, config.data.label_names, None, History())


def _taken(path: Path) -> StateError:
    return StateError(
        f"run folder {path} is there already: choose another run.name, or set run.resume to it to continue that run"
    )


def read_state(run: Path, round: int | None = None) -> RunState:
    """The server as the newest checkpoint of a run has it, or the newest of those after a round.

    Raises:
        StateError: there is none, or it is damaged.
    """
    newest = newest_checkpoint(run) if round is None else _checkpoint_of(run, round)
    try:
        body = json.loads((newest / STATE).read_text())
        joined, updates = (newest / _UPDATES).read_bytes(), []
        for size in body["updates"]:
            updates.append(joined[:size])
            joined = joined[size:]
        student = GlobalStudent(
            tensors=load_file(newest / _STUDENT),
            version=body["version"],
            updates=updates,
            residual=load_file(newest / _RESIDUAL),
        )
        if student.digest != body["digest"]:
            raise StateError(f"{newest / _STUDENT} is damaged: its digest differs")
        return RunState(
            lineage=body["lineage"],
            round=body["round"],
            labels=tuple(body["labels"]),
            student=student,
            history=History.from_dict(body["history"]),
            teacher_bytes=body["teacher-bytes"],
            partitions=body["partitions"],
            taken=body["taken"],
            shared_head=body["shared-head"],
            label_shares=tuple(body["label-shares"]),
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise StateError(f"checkpoint {newest} is damaged ({error}): remove it to go on from the one before") from None


def _checkpoint_of(run: Path, round: int) -> Path:
    kept: dict[int, Path] = {}
    for checkpoint in sorted((run / CHECKPOINTS).glob("[0-9]" * 8)):
        with suppress(OSError, ValueError, KeyError, TypeError):
            kept[int(json.loads((checkpoint / STATE).read_text())["round"])] = checkpoint
    if round not in kept:
        raise StateError(
            f"{run} keeps no checkpoint of round {round}, only of {', '.join(map(str, sorted(kept))) or 'none'}: "
            "run.keep-checkpoints keeps more of a run"
        )
    return kept[round]
