"""Federations in one process each, for benchmarks: real apps, codec and state, no Ray.

A study is a table of runs: scenario (data and how they are shared out) x variant (settings) x seed. What a run gave is
a line of benchmarks/results/STUDY.jsonl, or of OUT/quick.jsonl; a run whose line stands there, made with the same
settings, is not run again. Its folder is OUT/SCENARIO/VARIANT/seed-N; a run that was stopped goes on there after its
last finished round.
"""

import argparse
import json
import os
import shutil
import sys
import threading
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedkd_flwr.simulation import InProcessGrid

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
os.environ["HF_HUB_OFFLINE"] = "1"

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Scenario:
    """Data and how many nodes share them."""

    nodes: int
    settings: Settings
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """One federation of a study."""

    scenario: str
    variant: str
    seed: int
    settings: Settings


@dataclass(frozen=True)
class Result:
    """What a run gave: for each evaluated round its number, MB a node so far, scores of student, teachers and nodes.

    `student` and `teachers` are as the nodes use them, with the label frequencies of each where heads are adjusted to
    those; then `student-as-shared` is the student without. Lines of before 2026-11-28 lack that, and count F1 and
    average precision as 0 where a node has nothing to find.

    Attributes:
        device: on which the nodes learnt, "cpu" or a GPU's name.
    """

    scenario: str
    variant: str
    seed: int
    settings: Settings
    date: str
    rounds: list[dict[str, Any]]
    device: str = "cpu"


def scenarios(adr: Path | None) -> dict[str, Scenario]:
    """The tweets by source; with a folder that holds train.csv, the ADE sentences in four folds, even and skewed."""
    found = {"tweets": Scenario(6, {}, ("accuracy", "macro-f1", "loss"))}
    if adr is not None:
        data = {"data.dataset": f"csv:{adr.resolve() / 'train.csv'}", "model.max-length": 64}
        metrics = ("average-precision", "f1", "accuracy", "loss")
        found["adr-iid"] = Scenario(4, data | {"data.partition": "iid"}, metrics)
        found["adr-dirichlet"] = Scenario(
            4, data | {"data.partition": "dirichlet", "data.dirichlet-alpha": 0.5}, metrics
        )
    return found


def study(
    name: str, description: str, variants: Mapping[str, Settings], common: Settings, quick: Sequence[str] = ()
) -> None:
    """The command line of a study: run what is missing, print a table for each scenario.

    Args:
        name: of its results file; studies may share one.
        description: for --help.
        variants: name -> settings on top of `common`.
        common: settings on top of the defaults of pyproject.toml, in which nothing that matters is left to them.
        quick: the variants of --quick; empty: there is no such form.
    """
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--adr", type=Path, help="folder with train.csv: sentences (text) and whether (label)")
    parser.add_argument("--seeds", type=int, nargs="*", help="default: 0 1 2")
    parser.add_argument("--scenarios", nargs="*", help="tweets, adr-iid, adr-dirichlet; default: all there are")
    parser.add_argument("--variants", nargs="*", choices=list(variants), help="default: all")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="print what is there, run nothing")
    parser.add_argument("--last", action="store_true", help="the same in short: accuracy (loss) after the last round")
    if quick:
        parser.add_argument("--quick", action="store_true", help=f"afresh, seed 0, every round: {', '.join(quick)}")
    parser.set_defaults(quick=False)
    arguments = parser.parse_args()
    if arguments.quick:
        results, chosen, seeds, every = (
            Results(arguments.out / "quick.jsonl"),
            quick,
            [0],
            {"federation.evaluate-every": 1},
        )
    else:
        results, chosen, seeds, every = Results(RESULTS / f"{name}.jsonl"), tuple(variants), [0, 1, 2], {}
    settings = {variant: {**common, **variants[variant], **every} for variant in arguments.variants or chosen}
    places = scenarios(arguments.adr)
    wanted = [
        Run(scenario, variant, seed, settings[variant])
        for seed in arguments.seeds or seeds
        for scenario in arguments.scenarios or places
        for variant in settings
    ]
    if not (arguments.table or arguments.last):
        run_missing(wanted, results, places, arguments.out, arguments.jobs)
    if arguments.last:
        print("\n".join(last_rounds(results, settings)))
        return
    for scenario, place in scenarios(Path()).items():
        lines = list(table(results, scenario, place.metrics, settings))
        if lines:
            head = ["run", "seeds", "round", "MB/node"]
            head += [f"{who} {metric}" for who in ("student", "teachers") for metric in place.metrics]
            print(f"\n## {scenario}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
            print("\n".join(f"| {' | '.join(line)} |" for line in lines))


class Results:
    """The lines of a results file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self._results = [Result(**json.loads(line)) for line in lines]

    def of(self, scenario: str, variant: str, settings: Settings) -> list[Result]:
        """What the seeds gave, so far."""
        key = (scenario, variant, dict(settings))
        found = [r for r in self._results if (r.scenario, r.variant, dict(r.settings)) == key]
        return sorted(found, key=lambda result: result.seed)

    def has(self, run: Run) -> bool:
        """Whether a run has been made."""
        return any(result.seed == run.seed for result in self.of(run.scenario, run.variant, run.settings))

    def add(self, result: Result) -> None:
        """Write a line; one of the same run with other settings goes."""
        key = (result.scenario, result.variant, result.seed)
        self._results = [r for r in self._results if (r.scenario, r.variant, r.seed) != key] + [result]
        self._results.sort(key=lambda r: (r.scenario, r.variant, r.seed))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(asdict(r)) + "\n" for r in self._results))
        partial.replace(self._path)


def run_missing(wanted: Sequence[Run], results: Results, places: Mapping[str, Scenario], out: Path, jobs: int) -> None:
    """Make the runs that have no result yet, several at a time."""
    from fedkd_flwr.runtime.device import choose_device

    missing = [run for run in wanted if not results.has(run)]
    device = choose_device("auto", "auto").name
    with ProcessPoolExecutor(jobs, get_context("spawn"), end_with, (os.getpid(),)) as pool:
        tasks = {pool.submit(federate, run, places[run.scenario], out): run for run in missing}
        for task in as_completed(tasks):
            run = tasks[task]
            rounds = list(summarised(task.result(), places[run.scenario]))
            results.add(Result(run.scenario, run.variant, run.seed, run.settings, str(date.today()), rounds, device))
            print(f"# {run.scenario}, {run.variant}, seed {run.seed}: done", file=sys.stderr, flush=True)


def in_one_process(settings: Settings, nodes: int) -> "InProcessGrid":
    """A federation of the real apps, with settings on top of the defaults of pyproject.toml."""
    from fedkd_flwr.simulation import InProcessGrid

    node_configs = [{"partition-id": number, "num-partitions": nodes} for number in range(nodes)]
    return InProcessGrid({**defaults(), **settings}, node_configs)


def defaults() -> dict[str, Any]:
    """The run-config of pyproject.toml."""
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"])


def end_with(parent: int) -> None:
    """End this process soon after its parent, however that ends."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def federate(run: Run, place: Scenario, out: Path) -> dict[str, Any]:
    """Run, or go on with, one federation; its history, for which nothing else is kept."""
    import logging

    import torch

    from fedkd_flwr.simulation import run_federation

    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel("ERROR")
    parent = out / run.scenario / run.variant
    folder, state = parent / f"seed-{run.seed}", parent / f"state-{run.seed}"
    settings = {**place.settings, **run.settings, "seed": run.seed, "run.threads": 1}
    places = {"run.runs-dir": str(parent), "run.name": folder.name, "run.state-dir": str(state), "run.resume": ""}
    checkpoints, history = folder / "checkpoints", folder / "history.json"
    config = {**defaults(), **settings, **places}
    if _made_with(folder, config):
        found = dict(json.loads(history.read_text())) if history.exists() else {}
        if found.get("finished"):
            return found
        if any(checkpoints.glob("0*")):
            places["run.resume"] = str(folder)
    if folder.exists() and not places["run.resume"]:
        shutil.rmtree(folder)
    run_federation(in_one_process({**settings, **places}, place.nodes))
    shutil.rmtree(checkpoints)
    shutil.rmtree(state)
    return dict(json.loads(history.read_text()))


def _made_with(folder: Path, config: Settings) -> bool:
    """Whether what there is of a run was made with the same config."""
    if not (folder / "config.json").exists():
        return False
    stored = json.loads((folder / "config.json").read_text())
    return all(stored.get(key) == value for key, value in config.items() if key != "run.resume")


def summarised(history: Mapping[str, Any], place: Scenario) -> Iterator[dict[str, Any]]:
    """The evaluated rounds of a history; of each node only the scores of the scenario."""
    sent = history["initial"]["bytes-down"]
    for entry in history["rounds"]:
        sent += entry["bytes-up"] + entry["bytes-down"]
        if entry["nodes"] is not None:
            scores = {who: _rounded(_in_use(entry, who)) for who in ("student", "teachers")}
            if entry["student-own-labels"]:
                scores["student-as-shared"] = _rounded(entry["student"])
            nodes = {
                node: {who: _rounded(_in_use(found, who), place.metrics) for who in ("student", "teacher")}
                for node, found in entry["nodes"].items()
            }
            yield {"round": entry["round"], "mb": round(sent / place.nodes / 1e6, 3), **scores, "nodes": nodes}


def _in_use(scores: Mapping[str, Any], who: str) -> dict[str, float] | None:
    """Those of a model with its node's own label frequencies, where it is adjusted to them."""
    return scores[f"{who}-own-labels"] or scores[who]


def table(
    results: Results, scenario: str, metrics: Sequence[str], variants: Mapping[str, Settings]
) -> Iterator[list[str]]:
    """A line for each variant and evaluated round: mean and standard error over the seeds."""
    for variant, settings in variants.items():
        found = results.of(scenario, variant, settings)
        for entries in zip(*(result.rounds for result in found), strict=True):
            line = [variant, str(len(found)), str(entries[0]["round"]), f"{mean(e['mb'] for e in entries):.2f}"]
            for who in ("student", "teachers"):
                for metric in metrics:
                    line.append(mean_and_error(e[who][metric] for e in entries if metric in (e[who] or ())))
            yield line


def last_rounds(results: Results, variants: Mapping[str, Settings]) -> Iterator[str]:
    """A Markdown table with a line for each variant: accuracy and (loss) of student and teachers in each scenario."""
    places = list(scenarios(Path()))
    columns = [f"{place}: {who}" for place in places for who in ("student", "teachers")]
    yield f"| | seeds | MB a node | {' | '.join(columns)} |"
    yield f"|{'---|' * (3 + len(columns))}"
    for variant, settings in variants.items():
        found = {place: results.of(place, variant, settings) for place in places}
        ends = {place: [result.rounds[-1] for result in of_place] for place, of_place in found.items() if of_place}
        if not ends:
            continue
        seeds = sorted({len(of_place) for of_place in ends.values()})
        cells = [variant, " to ".join(map(str, seeds)), f"{mean(e['mb'] for e in next(iter(ends.values()))):.1f}"]
        for place in places:
            for who in ("student", "teachers"):
                scores = [end[who] for end in ends.get(place, []) if end[who]]
                accuracy = mean_and_error(score["accuracy"] for score in scores)
                cells.append(f"{accuracy} ({mean(s['loss'] for s in scores):.3f})" if scores else "")
        yield f"| {' | '.join(cells)} |"


def mean_and_error(values: Iterable[float]) -> str:
    """Mean and standard error of what the seeds gave."""
    values = list(values)
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else "-"
    return f"{mean(values):.3f} ± {stdev(values) / len(values) ** 0.5:.3f}"


def _rounded(scores: Mapping[str, float] | None, only: Iterable[str] = ()) -> dict[str, float] | None:
    return scores and {name: round(scores[name], 4) for name in only or scores if name in scores}
