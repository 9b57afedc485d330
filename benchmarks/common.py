"""Federations in one process each, for benchmarks: real apps, codec and state, no Ray; resumable, two at a time.

A run is (scenario, variant, seed) and lives in OUT/SCENARIO/VARIANT/seed-N; one that is finished is not run
again, one that was stopped goes on after its last finished round.
"""

import json
import os
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ["HF_HUB_OFFLINE"] = "1"

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Scenario:
    """Data and how many nodes share them."""

    nodes: int
    settings: Settings


@dataclass(frozen=True)
class Run:
    """One federation of a benchmark."""

    scenario: str
    variant: str
    seed: int
    nodes: int
    settings: Settings
    folder: Path


def adr(path: Path) -> dict[str, Scenario]:
    """The ADE sentences in four folds, as in the paper, and skewed."""
    data = {"dataset": f"csv:{path.resolve() / 'train.csv'}", "max-test-examples": 250, "max-length": 64}
    return {
        "adr-iid": Scenario(4, data | {"partition": "iid"}),
        "adr-dirichlet": Scenario(4, data | {"partition": "dirichlet", "dirichlet-alpha": 0.5}),
    }


def tweets() -> dict[str, Scenario]:
    """The tweets by source."""
    return {"tweets": Scenario(6, {"max-test-examples": 200})}


def run_all(
    out: Path,
    scenarios: Mapping[str, Scenario],
    variants: Mapping[str, Settings],
    seeds: Iterable[int],
    common: Settings,
    jobs: int,
) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Histories by (scenario, variant), one for each seed."""
    runs = [
        Run(scenario, variant, seed, place.nodes, {**place.settings, **common, **settings}, out / scenario / variant)
        for seed in seeds
        for scenario, place in scenarios.items()
        for variant, settings in variants.items()
    ]
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for run, history in zip(runs, pool.map(federate, runs), strict=True):
            print(f"# {run.scenario}, {run.variant}, seed {run.seed}: done", file=sys.stderr, flush=True)
            found.setdefault((run.scenario, run.variant), []).append(history)
    return found


def federate(run: Run) -> dict[str, Any]:
    """Run, or go on with, one federation; its history."""
    import logging

    import torch
    from flwr.supercore.task_identity import TaskIdentity
    from loopback import LoopbackGrid, run_server

    torch.set_num_threads(1)
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    logging.getLogger("flwr").setLevel("ERROR")
    name = f"seed-{run.seed}"
    folder = run.folder / name
    if not (folder / "student").exists() and not (folder / "done").exists():
        defaults = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
        place = {
            "seed": run.seed,
            "threads": 1,
            "runs-dir": str(run.folder),
            "run-name": name,
            "state-dir": str(run.folder / f"state-{run.seed}"),
            "resume": str(folder) if any(folder.glob("checkpoints/0*")) else "",
        }
        nodes = [{"partition-id": i, "num-partitions": run.nodes} for i in range(run.nodes)]
        run_server(LoopbackGrid({**defaults, **run.settings, **place}, nodes))
        (folder / "done").touch()
    return dict(json.loads((folder / "history.json").read_text()))


def mean_and_error(values: Iterable[float]) -> str:
    """Mean and standard error of what the seeds gave."""
    values = list(values)
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{mean(values):.3f} ± {stdev(values) / len(values) ** 0.5:.3f}"


def score(board: Mapping[str, Any], who: str, metric: str) -> float | None:
    """A score of one model, None where there is no such model or metric."""
    return (board[who] or {}).get(metric)


def megabytes(history: Mapping[str, Any], until: int, nodes: int) -> float:
    """Encoded MB up and down of one node, all rounds to `until`."""
    sent = history["initial"]["bytes-down"]
    sent += sum(entry["bytes-up"] + entry["bytes-down"] for entry in history["rounds"][:until])
    return float(sent) / nodes / 1e6


def rows(histories: list[dict[str, Any]], nodes: int, metrics: Iterable[str]) -> Iterator[list[str]]:
    """A line for each evaluated round: round, MB a node, then each metric of student and teachers."""
    metrics = list(metrics)
    for index, entry in enumerate(histories[0]["rounds"]):
        if entry["nodes"] is None:
            continue
        line = [str(entry["round"]), f"{mean(megabytes(h, index + 1, nodes) for h in histories):.2f}"]
        for who in ("student", "teachers"):
            for metric in metrics:
                values = [score(h["rounds"][index], who, metric) for h in histories]
                known = [value for value in values if value is not None]
                line.append(mean_and_error(known) if known else "-")
        yield line
