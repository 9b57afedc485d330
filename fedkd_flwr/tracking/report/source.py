"""A run as its report shows it: what its folder says, without its models."""

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import ConfigError, StateError
from fedkd_flwr.runtime.one_line import one_line
from fedkd_flwr.tracking.history import History
from fedkd_flwr.tracking.past_run import HISTORY
from fedkd_flwr.tracking.summary import Round, Summary, summarise
from fedkd_flwr.tracking.traffic_log import TRAFFIC

_LONGEST_REASON = 300


@dataclass
class Cell:
    """One tensor in one round and direction, over all updates that had it.

    Attributes:
        updates: how many there are.
        nbytes: encoded bytes of all of them.
        ranks: sum of their ranks.
        kinds: how many of them are encoded in each way.
    """

    updates: int = 0
    nbytes: int = 0
    ranks: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, row: Mapping[str, str]) -> None:
        """Count a row of traffic.csv."""
        self.updates += 1
        self.nbytes += int(row["bytes"])
        self.ranks += int(row["rank"])
        self.kinds[row["kind"]] += 1

    @property
    def mean_bytes(self) -> float:
        """Encoded bytes of one update."""
        return self.nbytes / self.updates

    @property
    def mean_rank(self) -> float:
        """Rank in one update; 0: it is not factored."""
        return self.ranks / self.updates if 2 * self.kinds["factored"] > self.updates else 0.0


Tensors = dict[str, dict[int, Cell]]
"""Tensor -> round -> what it took, tensors in the order of the wire."""


@dataclass(frozen=True)
class Source:
    """A run of which a report tells.

    Attributes:
        name: of its folder.
        config: its run-config.
        history: its rounds.
        summary: what it achieved and sent.
        finished: nothing is left to do.
        traffic: "up" and "down" -> what each tensor took.
    """

    name: str
    config: RunConfig
    history: History
    summary: Summary
    finished: bool
    traffic: Mapping[str, Tensors]

    @classmethod
    def read(cls, folder: Path) -> "Source":
        """The run in a folder.

        Raises:
            StateError: one line: there is none, or it is not one of this version.
        """
        path = folder / HISTORY
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            with (folder / TRAFFIC).open(newline="", encoding="utf-8") as file:
                traffic = _by_tensor(csv.DictReader(file))
            return cls(
                name=folder.absolute().name,
                config=RunConfig.parse(stored["config"]),
                history=History.from_dict(stored),
                summary=summarise(stored),
                finished=stored["finished"],
                traffic=traffic,
            )
        except OSError as error:
            raise StateError(f"{folder} holds no run to report: {error.filename} ({error.strerror})") from None
        except (ValueError, KeyError, TypeError, AttributeError, csv.Error, ConfigError) as error:
            reason = one_line(f"{type(error).__name__}: {error}", _LONGEST_REASON)
            raise StateError(f"{folder} is not a run of this version: {reason}") from None

    @cached_property
    def rounds(self) -> tuple[Round, ...]:
        """Its rounds, with the scores before the first where there are any."""
        return tuple(row for row in self.summary.rounds if not row.best)

    @cached_property
    def outcome(self) -> Round | None:
        """The models that are exported: those of the best round, or the last with scores."""
        return next((row for row in reversed(self.summary.rounds) if row.scores), None)

    @cached_property
    def megabytes(self) -> dict[int, float]:
        """Round -> MB that a node has sent and received up to its student, mean over the nodes that took part."""
        initial = self.history.initial
        total = initial.bytes_down / initial.refreshed / 1e6 if initial.refreshed else 0.0
        found = {}
        for row in self.rounds:
            total += ((row.up or 0.0) + (row.down or 0.0)) / 1e6
            found[row.number] = total
        return found

    @property
    def shares(self) -> bool:
        """Whether anything is shared: nodes that train alone send empty updates."""
        return self.summary.student_bytes > 0

    @property
    def last(self) -> Round | None:
        """The last round; None: there is none yet."""
        return next((row for row in reversed(self.rounds) if row.number), None)

    @property
    def titles(self) -> dict[str, str]:
        """Node -> its data, for people; in the order in which nodes joined."""
        return {node: data["title"] for node, data in self.history.data.items()}

    def score(self, row: Round, model: str, metric: str) -> float | None:
        """A score of a round; None: it is not measured."""
        found, shown = row.scores.get(model), self.summary.metrics.shown
        if found is None or metric not in shown:
            return None
        return (found.first, found.second)[shown.index(metric)]


def _by_tensor(rows: Iterable[Mapping[str, str]]) -> dict[str, Tensors]:
    found: dict[str, Tensors] = {"up": {}, "down": {}}
    for row in rows:
        cells = found[row["direction"]].setdefault(row["tensor"], defaultdict(Cell))
        cells[int(row["round"])].add(row)
    return found
