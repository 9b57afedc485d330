"""A run's rounds as TensorBoard events in its folder: `tensorboard --logdir runs` compares runs."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from fedkd_flwr.tracking.history import History, ScoreBoard, board_numbers, training_numbers


class TensorBoardLogger:
    """Writes each number of a round once. It takes the place of what an earlier start of the run wrote.

    Events are on the disk when `log` returns: TensorBoard's own writer has a thread, which a process that is killed or
    forked leaves behind.
    """

    def __init__(self, run: Path) -> None:
        self._began = time.time()
        self._path = run / f"events.out.tfevents.{self._began:.6f}.fedkd"
        self._trained = self._scored = 0

    def log(self, history: History) -> None:
        """Write the rounds that are new, and the scores that are complete: those of a round come with the next."""
        events = [] if self._path.exists() else self._header
        events += [_event(training_numbers(entry), entry.round) for entry in history.rounds[self._trained :]]
        boards: list[ScoreBoard] = [history.initial, *history.rounds]
        complete = len(boards) if boards[-1].nodes is not None else len(history.rounds)
        events += [_event(board_numbers(boards[n]), n) for n in range(self._scored, complete)]
        self._append(events)
        self._trained, self._scored = len(history.rounds), max(self._scored, complete)

    @property
    def _header(self) -> list[Event]:
        """What begins the file: earlier files of the run count no more."""
        restart = SessionLog(status=SessionLog.START)
        return [
            Event(wall_time=self._began, file_version="brain.Event:2"),
            Event(wall_time=self._began, step=0, session_log=restart),
        ]

    def _append(self, events: Iterable[Event]) -> None:
        with self._path.open("ab") as file:
            records = RecordWriter(file)
            for event in events:
                records.write(event.SerializeToString())


def _event(numbers: Mapping[str, float], round: int) -> Event:
    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in numbers.items()]
    return Event(wall_time=time.time(), step=round, summary=Summary(value=values))
