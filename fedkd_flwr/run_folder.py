"""What the server keeps of a run: config, history, byte ledger, checkpoints, the exported student.

RUN/config.json           the run-config
RUN/history.json          scores, bytes and seconds of each round
RUN/traffic.csv           a row for each round, node, direction and tensor
RUN/checkpoints/00000003/ the third state of the server: student, newest updates, residual, bases, history
RUN/student/              the student after the last round (its encoder where nodes keep heads of their own),
                          a `from_pretrained` folder; so is
RUN/teacher/              where all layers of the teacher travel
"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fedkd_flwr.config import RunConfig
from fedkd_flwr.disk import flush, write_json
from fedkd_flwr.errors import ConfigError, StateError
from fedkd_flwr.global_student import GlobalStudent
from fedkd_flwr.history import History
from fedkd_flwr.ledger import Ledger
from fedkd_flwr.run_names import fresh_run_name

_FORMAT = 3
_KEEP_CHECKPOINTS = 2
_TRAFFIC = "traffic.csv"
_STATE, _UPDATES = "state.json", "updates.bin"
_STUDENT, _RESIDUAL, _BASES = "student.safetensors", "residual.safetensors", "bases.safetensors"


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
        shared_head: whether the student's head travels; decided when the first nodes have joined.
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
    """The folder of one run, and its ledger."""

    def __init__(self, path: Path, ledger: Ledger) -> None:
        self.path = path
        self.ledger = ledger

    @classmethod
    def create(cls, path: Path, config: RunConfig) -> "RunFolder":
        """A new folder with the run's config.

        Raises:
            StateError: the folder exists and is not empty, or cannot be written.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise StateError(
                    f"run folder {path} is not empty: choose another run-name, or set resume to continue that run"
                )
            write_json(path / "config.json", config.as_run_config())
            return cls(path, Ledger.create(path / _TRAFFIC))
        except OSError as error:
            raise StateError(f"cannot write run folder {path}: {error}; set runs-dir to another folder") from None

    @classmethod
    def resume(cls, path: Path, config: RunConfig) -> tuple["RunFolder", RunState]:
        """The folder and newest checkpoint of a run that `config` continues.

        Raises:
            StateError: there is no such run, or its checkpoint is damaged.
            ConfigError: the config would make it another run; names the keys.
        """
        try:
            stored = RunConfig.parse(json.loads((path / "config.json").read_text()))
        except (OSError, ValueError) as error:
            raise StateError(f"resume: {path} holds no run to continue ({error})") from None
        if differences := stored.differences(config):
            raise ConfigError(f"resume: {path} is another run: {'; '.join(differences)}. Set these keys as they were")
        state = _newest_state(path)
        if state.round > config.num_rounds:
            raise ConfigError(
                f"run-config key 'num-rounds' is {config.num_rounds} but {path} has finished {state.round} rounds"
            )
        folder = cls(path, Ledger.load(path / _TRAFFIC))
        write_json(path / "config.json", config.as_run_config() | {"resume": ""})
        folder.write_history(state, config)
        return folder, state

    def checkpoint(self, state: RunState, config: RunConfig) -> None:
        """Keep the server as it is after a round, and publish the round in history.json.

        Raises:
            StateError: the disk refuses; the checkpoint before is still there.
        """
        assert state.student is not None
        try:
            parent = self.path / "checkpoints"
            fresh = parent / ".new"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            save_file(dict(state.student.tensors), fresh / _STUDENT)
            save_file(dict(state.student.residual), fresh / _RESIDUAL)
            save_file(dict(state.student.bases), fresh / _BASES)
            (fresh / _UPDATES).write_bytes(b"".join(state.student.updates))
            body = {
                "format": _FORMAT,
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
            write_json(fresh / _STATE, body)
            for path in [*fresh.iterdir(), fresh]:
                flush(path)
            newest = max(parent.glob("[0-9]" * 8), default=None)
            number = int(newest.name) + 1 if newest else 1
            fresh.rename(parent / f"{number:08d}")
            flush(parent)
            self.write_history(state, config)
            for old in sorted(parent.glob("[0-9]" * 8))[:-_KEEP_CHECKPOINTS]:
                shutil.rmtree(old)
        except (OSError, SafetensorError) as error:
            raise StateError(
                f"cannot write checkpoint of round {state.round} to {self.path}: {error}; "
                f"free space, then set resume to {self.path}"
            ) from None

    def write_history(self, state: RunState, config: RunConfig) -> None:
        """Replace history.json."""
        body = {
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
        write_json(self.path / "history.json", body)


def open_run(config: RunConfig) -> tuple[RunFolder, RunState]:
    """The folder and state from which the server starts: a new run's, or the one that `resume` names.

    Raises:
        StateError, ConfigError: as `RunFolder.create` and `RunFolder.resume`.
    """
    if config.resume:
        return RunFolder.resume(Path(config.resume).absolute(), config)
    folder = RunFolder.create(Path(config.runs_dir).absolute() / (config.run_name or fresh_run_name()), config)
    return folder, RunState(uuid4().hex[:16], 0, config.label_names, None, History())


def _newest_state(run: Path) -> RunState:
    newest = max((run / "checkpoints").glob("[0-9]" * 8), default=None)
    if newest is None:
        raise StateError(f"resume: {run} has finished no round yet: start a new run")
    try:
        body = json.loads((newest / _STATE).read_text())
        if body["format"] != _FORMAT:
            raise StateError(
                f"resume: {newest} has format {body['format']}, this version reads {_FORMAT}: "
                "go on with the version of fedkd-flwr that wrote it, or start a new run"
            )
        joined, updates = (newest / _UPDATES).read_bytes(), []
        for size in body["updates"]:
            updates.append(joined[:size])
            joined = joined[size:]
        student = GlobalStudent(
            tensors=load_file(newest / _STUDENT),
            version=body["version"],
            updates=updates,
            residual=load_file(newest / _RESIDUAL),
            bases=load_file(newest / _BASES),
        )
        if student.digest != body["digest"]:
            raise StateError(f"resume: {newest / _STUDENT} is damaged: its digest differs")
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
        raise StateError(
            f"resume: checkpoint {newest} is damaged ({error}): remove it to go on from the one before"
        ) from None
