"""A run's rounds as TensorBoard events in its folder: `tensorboard --logdir runs` compares runs."""

from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from fedkd_flwr.tracking.history import History, ScoreBoard, board_numbers, training_numbers


class TensorBoardLogger:
    """Writes each number of a round once. It takes the place of what an earlier start of the run wrote."""

    def __init__(self, run: Path) -> None:
        self._writer = SummaryWriter(str(run), purge_step=0)
        self._trained = self._scored = 0

    def log(self, history: History) -> None:
        """Write the rounds that are new, and the scores that are complete: those of a round come with the next."""
        for entry in history.rounds[self._trained :]:
            self._write(training_numbers(entry), entry.round)
        self._trained = len(history.rounds)
        boards: list[ScoreBoard] = [history.initial, *history.rounds]
        for number, board in list(enumerate(boards))[self._scored :]:
            if number == len(history.rounds) and board.nodes is None:
                break
            self._write(board_numbers(board), number)
            self._scored = number + 1
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _write(self, numbers: dict[str, float], round: int) -> None:
        for tag, value in numbers.items():
            self._writer.add_scalar(tag, value, round)
