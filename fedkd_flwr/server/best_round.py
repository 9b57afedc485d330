"""The best evaluated round of a run: which one it is, its student on disk, and when there is no more to wait for.

RUN/best/00000003.safetensors    the student after round 3, as long as no later round is better
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.config.tasks import LOWER_IS_BETTER
from fedkd_flwr.errors import ConfigError, StateError
from fedkd_flwr.runtime.disk import flush
from fedkd_flwr.server.run_folder import RunState
from fedkd_flwr.tracking.history import History, Scored


class BestRound:
    """Decided by the history alone, so that a run that was resumed decides as the undisturbed one.

    Of rounds with the same score the first is the best. A round of which the score is undefined counts for nothing.
    """

    def __init__(self, config: RunConfig, history: History, run: Path) -> None:
        """Of a run with this folder; nothing is done where its `federation.keep-best` is empty."""
        self.metric = config.federation.keep_best
        self._patience = config.federation.early_stopping
        self._metrics = config.task_spec.metrics
        self._history = history
        self._folder = run / "best"

    @property
    def number(self) -> int:
        """The best round so far; 0: none."""
        return self._best(len(self._history.rounds))[0]

    def ends(self, round: int) -> bool:
        """Whether so many evaluations before `round` were without gain that the run ends with it."""
        return bool(self._patience) and self._best(round - 1)[1] >= self._patience

    def score(self, board: Scored) -> float | None:
        """That of a round by which it is compared; None: it has none."""
        who, _, name = self.metric.partition(".")
        scores = {
            "student": board.student,
            "student-own-labels": board.student_own_labels,
            "teacher": board.teachers,
            "server": board.server,
        }
        return (scores.get(who) or {}).get(name)

    def require(self, classes: set[int], adjusted: bool) -> None:
        """Whether the nodes that have joined can have the metric.

        Args:
            classes: how many labels there are at them.
            adjusted: whether their students are adjusted to their label frequencies.

        Raises:
            ConfigError: they cannot; lists what they have.
        """
        who, _, name = self.metric.partition(".")
        names = self._metrics.of(classes)
        if self.metric and name not in names:
            raise ConfigError(
                f"run-config key 'federation.keep-best' is {self.metric!r}, which needs two labels: here there are "
                f"{', '.join(names)}"
            )
        if who == "student-own-labels" and not adjusted:
            raise ConfigError(
                f"run-config key 'federation.keep-best' is {self.metric!r}, but no student is adjusted to its "
                "node's label "
                f"frequencies, as labels differ: set it to 'student.{name}'"
            )

    def keep(self, students: Mapping[int, Mapping[str, Tensor]]) -> None:
        """Write the best round's student, where it is among these by round.

        Raises:
            StateError: the disk refuses.
        """
        best = self.number
        path = self._path(best)
        if not best or best not in students or path.exists():
            return
        fresh = path.with_suffix(".new")
        try:
            self._folder.mkdir(exist_ok=True)
            save_file(dict(students[best]), fresh)
            flush(fresh)
            fresh.replace(path)
            flush(self._folder)
        except (OSError, SafetensorError) as error:
            raise StateError(f"cannot write {path}: {error}; free space, then resume the run") from None

    def forget_others(self) -> None:
        """Remove the students of rounds that were the best once; after a checkpoint knows the new one."""
        for path in self._folder.glob("*.safetensors"):
            if path != self._path(self.number):
                path.unlink()

    def of(self, state: RunState) -> RunState:
        """The state of a run with the student of the best round; as it is where none is known.

        Raises:
            StateError: that student cannot be read.
        """
        if not self.number or state.student is None:
            return state
        return replace(state, round=self.number, student=replace(state.student, tensors=self.student()))

    def student(self) -> Mapping[str, Tensor]:
        """The best round's.

        Raises:
            StateError: it cannot be read.
        """
        path = self._path(self.number)
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise StateError(f"{path}, the student of the best round, cannot be read: {error}") from None

    def _path(self, round: int) -> Path:
        return self._folder / f"{round:08d}.safetensors"

    def _best(self, until: int) -> tuple[int, int]:
        """The best of the rounds up to `until`, and how many evaluations have come after it."""
        best, since, record = 0, 0, 0.0
        sign = -1.0 if self.metric.partition(".")[2] in LOWER_IS_BETTER else 1.0
        for entry in self._history.rounds[:until]:
            score = self.score(entry) if self.metric else None
            if score is None:
                continue
            if best == 0 or sign * score > record:
                best, since, record = entry.round, 0, sign * score
            else:
                since += 1
        return best, since
