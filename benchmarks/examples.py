"""The figures on the pages of examples/: each with its config, by method, over seeds.

    python benchmarks/examples.py ner --out OUT -c 'dataset="iob:small"' [--seeds 0 1 2] [--jobs 2]

`-c` gives the data and models that the page makes or names. Results: benchmarks/results/examples.jsonl.
"""

import argparse
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

from common import RESULTS, ROOT, Result, Results, Run, Scenario, Settings, mean_and_error, run_missing
from flwr.common.config import parse_config_args

from fedkd_flwr.config.schema import flat

PLAIN = {"train.linear-probe": "never", "train.logit-adjustment": "never"}
LOCAL = {"method": "local"} | PLAIN
FEDAVG = {"method": "fedavg"} | PLAIN
THROUGH_THE_CODEC = FEDAVG | {"codec.kind": "budget", "codec.budget": "128x"}
ADJUSTED = {"train.logit-adjustment": "always"}
START = {"train.linear-probe": "always"}


@dataclass(frozen=True)
class Example:
    """A page: nodes, the scores that it shows, the runs by name."""

    nodes: int
    metrics: tuple[str, ...]
    variants: Mapping[str, Settings]
    common: Settings = field(default_factory=lambda: {"run.precision": "bf16"})


EXAMPLES = {
    "ner": Example(
        3,
        ("span-f1", "loss"),
        {
            "fedkd": {},
            "local": LOCAL,
            "local, same start": LOCAL | START,
            "fedavg, 128x": THROUGH_THE_CODEC,
            "fedavg, 128x, same start": THROUGH_THE_CODEC | START,
        },
    ),
    "images": Example(
        4,
        ("accuracy", "macro-f1", "loss"),
        {
            "fedkd": {},
            "fedkd, not adjusted": {"train.logit-adjustment": "never"},
            "fedkd, separate": {"model.architecture": "separate"},
            "local": LOCAL,
            "local, same start": LOCAL | START,
            "fedavg": FEDAVG,
            "fedavg, adjusted, 2e-3": FEDAVG | ADJUSTED | {"train.teacher-learning-rate": 2e-3},
            "fedavg, adjusted, 2e-3, same start": FEDAVG | ADJUSTED | START | {"train.teacher-learning-rate": 2e-3},
        },
        {},
    ),
    "news": Example(
        4,
        ("auc", "mrr", "ndcg@5", "ndcg@10"),
        {
            "fedkd": {},
            "fedkd, all layers travel": {"model.shared-layers": 6, "codec.budget": "192x"},
            "local": LOCAL,
            "fedavg-student": {"method": "fedavg-student"} | PLAIN,
            "fedavg": FEDAVG,
        },
    ),
    "teachers": Example(
        3,
        ("accuracy", "macro-f1", "loss"),
        {
            "fedkd": {},
            "local": LOCAL,
            "local, same start": LOCAL | START,
        },
    ),
}


def main() -> None:
    """Run what is missing, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("example", choices=list(EXAMPLES))
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("-c", dest="config", action="append", default=[], help="run-config: data and models")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="*")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="print what is there, run nothing")
    arguments = parser.parse_args()
    name, example = arguments.example, EXAMPLES[arguments.example]
    if unknown := set(arguments.variants or ()) - set(example.variants):
        parser.error(f"{name} has no variant {', '.join(sorted(unknown))}: choose from {', '.join(example.variants)}")
    page = flat(tomllib.loads((ROOT / "examples" / name / "config.toml").read_text()))
    settings = {variant: {**page, **example.common, **given} for variant, given in example.variants.items()}
    files = dict(parse_config_args(arguments.config))
    results = Results(RESULTS / "examples.jsonl")
    if not arguments.table:
        wanted = [
            Run(name, variant, seed, settings[variant])
            for seed in arguments.seeds
            for variant in arguments.variants or settings
        ]
        place = Scenario(example.nodes, files, example.metrics)
        run_missing(wanted, results, {name: place}, arguments.out, arguments.jobs)
    head = ["run", "seeds", "round", "MB up and down a node", "", *example.metrics]
    head += [f"{example.metrics[0]} of node {node}" for node in range(example.nodes)]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for variant, given in settings.items():
        for line in rows(variant, results.of(name, variant, given), example):
            print(f"| {' | '.join(line)} |")


def rows(variant: str, found: list[Result], example: Example) -> Iterator[list[str]]:
    """A line for student and teachers after each evaluated round: means and standard errors over the seeds."""
    for entries in zip(*(result.rounds for result in found), strict=True):
        for whose, model in (("student", "student"), ("teachers", "teacher")):
            if any(entry[whose] is None for entry in entries):
                continue
            line = [variant, str(len(found)), str(entries[0]["round"]), f"{mean(e['mb'] for e in entries):.2f}", whose]
            for metric in example.metrics:
                line.append(mean_and_error(entry[whose][metric] for entry in entries if metric in entry[whose]))
            for node in sorted(entries[0]["nodes"]):
                scores = [entry["nodes"][node][model] for entry in entries]
                found = [of_seed[example.metrics[0]] for of_seed in scores if example.metrics[0] in of_seed]
                line.append(f"{mean(found):.3f}" if found else "-")
            yield line


if __name__ == "__main__":
    main()
