"""How fast students and teachers learn, by method, at equal local steps.

    python benchmarks/learning.py --out OUT [--adr FOLDER] [--quick] [--seeds 3] [--scenarios NAME ...] [--jobs 2]

FOLDER holds train.csv with the columns text and label (ADE sentences: does it report an adverse drug reaction?).
Stopped, the same command goes on where it was.
"""

import argparse
from datetime import date
from pathlib import Path

from common import adr, rows, run_all, tweets

APART = {"architecture": "separate"}
VARIANTS = {
    "fedavg teacher": {"method": "fedavg"},
    "fedavg student": {"method": "fedavg-student"},
    "local teachers": {"method": "local"},
    "paper": {"method": "fedkd-paper"},
    "ours separate": {"method": "fedkd", "codec": "dense", **APART},
    "ours nested": {"method": "fedkd", "codec": "dense", "architecture": "nested"},
}
METRICS = ("f1", "average-precision", "accuracy", "macro-f1", "loss")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--adr", type=Path)
    parser.add_argument("--quick", action="store_true", help="one seed, few rounds: within an hour on 2 cores")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scenarios", nargs="*", help="tweets, adr-iid, adr-dirichlet; default: all there are")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    common = {
        "num-rounds": 6 if arguments.quick else 12,
        "local-steps": 8,
        "batch-size": 16,
        "learning-rate": 2e-4,
        "evaluate-every": 2,
    }
    scenarios = tweets() | (adr(arguments.adr) if arguments.adr else {})
    scenarios = {name: place for name, place in scenarios.items() if name in (arguments.scenarios or scenarios)}
    seeds = range(1 if arguments.quick else arguments.seeds)
    found = run_all(arguments.out, scenarios, VARIANTS, seeds, common, arguments.jobs)
    print(f"{date.today()}, {len(seeds)} seeds, {common}")
    for scenario, place in scenarios.items():
        head = ["round", "MB/node", *(f"{who} {metric}" for who in ("student", "teachers") for metric in METRICS)]
        print(f"\n## {scenario}\n\n| method | {' | '.join(head)} |\n|---{'|---' * len(head)}|")
        for variant in VARIANTS:
            for line in rows(found[scenario, variant], place.nodes, METRICS):
                print(f"| {variant} | {' | '.join(line)} |")


if __name__ == "__main__":
    main()
