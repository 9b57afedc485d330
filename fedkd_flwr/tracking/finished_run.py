"""A run as its folder has it: config, history, traffic, models."""

import csv
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import ConfigError, StateError
from fedkd_flwr.tracking.history import History
from fedkd_flwr.tracking.node_links import node_folder
from fedkd_flwr.tracking.past_run import HISTORY
from fedkd_flwr.tracking.report import REPORT, write_report
from fedkd_flwr.tracking.traffic_log import TRAFFIC, counted

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class RunClient:
    """A client of a run.

    Attributes:
        name: of the client, such as `partition-0`.
        title: of its data.
        folder: its state on this machine, which holds its models.
    """

    name: str
    title: str
    folder: Path

    @cached_property
    def teacher(self) -> "PreTrainedModel":
        """The client's own large model after the last round, in evaluation mode.

        Raises:
            StateError: the client has left no teacher on this machine.
            ModelError: its folder cannot be read.
        """
        return _model(self.folder / "teacher", f"client {self.name} has left no teacher on this machine")


@dataclass(frozen=True)
class Run:
    """A run, finished or as far as it got.

    Attributes:
        folder: of its results, absolute.
        config: its validated run-config.
        history: scores, bytes and seconds of each round; `history.to_pandas()` is a table of them.
        clients: in the order of their partitions.
    """

    folder: Path
    config: RunConfig
    history: History
    clients: tuple[RunClient, ...]

    @classmethod
    def load(cls, folder: str | Path) -> "Run":
        """Read the run in a folder.

        Raises:
            StateError: there is none, or it is not one of this version.
        """
        path = Path(folder).expanduser().absolute()
        try:
            stored = json.loads((path / HISTORY).read_text(encoding="utf-8"))
            config, history = RunConfig.parse(stored["config"]), History.from_dict(stored)
            titles = {node: data["title"] for node, data in history.data.items()}
        except OSError as error:
            raise StateError(f"{path} holds no run: {HISTORY} cannot be read ({error.strerror})") from None
        except (ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
            raise StateError(f"{path / HISTORY} is not of a run of this version: {error}") from None
        clients = (
            RunClient(node, titles[node], node_folder(path, node, titles)) for node in sorted(titles, key=_order)
        )
        return cls(path, config, history, tuple(clients))

    @cached_property
    def student(self) -> "PreTrainedModel":
        """The student that was exported, in evaluation mode; its encoder where clients keep heads of their own.

        Raises:
            StateError: the run has exported none.
            ModelError: its folder cannot be read.
        """
        return _model(self.folder / "student", f"{self.folder} has no student: it has not finished, or shares none")

    def report(self, path: str | Path | None = None) -> Path:
        """Write a page about the run: one file that needs no network.

        Args:
            path: the page; None: `report.html` in the run's folder.

        Returns:
            The page.

        Raises:
            StateError: it cannot be written.
        """
        return write_report([self.folder], self.folder / REPORT if path is None else Path(path))

    @cached_property
    def traffic(self) -> "pd.DataFrame":
        """Encoded bytes `up` and `down` of each round, over all clients; one row a round.

        Raises:
            StateError: the log of the traffic cannot be read.
        """
        import pandas as pd

        path = self.folder / TRAFFIC
        try:
            with path.open(newline="", encoding="utf-8") as file:
                total = counted(csv.DictReader(file))
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise StateError(f"{path} cannot be read: {error}") from None
        rounds = sorted({round for round, _ in total})
        columns = {direction: [total[round, direction] for round in rounds] for direction in ("up", "down")}
        return pd.DataFrame(columns, index=pd.Index(rounds, name="round"))


def _model(folder: Path, lacking: str) -> "PreTrainedModel":
    from fedkd_flwr.models.export import load_classifier

    if not folder.is_dir():
        raise StateError(lacking)
    return load_classifier(folder)


def _order(node: str) -> list[Any]:
    """Sorts `partition-10` after `partition-2`."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", node)]
