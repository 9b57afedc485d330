"""What the default run's architecture, weights, learning rate and budget were chosen from.

    python benchmarks/defaults.py --out OUT [--seeds 1] [--jobs 2]

Stopped, the same command goes on where it was. Two hours on 2 cores for one seed.
"""

import argparse
from datetime import date
from pathlib import Path

from common import rows, run_all, tweets

PAPERS_CODEC = {"codec": "energy", "error-feedback": "none"}
SEPARATE = {"architecture": "separate", "learning-rate": 2e-4, **PAPERS_CODEC}
NESTED = {"architecture": "nested", "learning-rate": 2e-4, **PAPERS_CODEC}
KL = ("teacher-kl-weight", "student-kl-weight")
MATCHING = [f"{pupil}-{term}-weight" for pupil in ("teacher", "student") for term in ("hidden", "attention")]
VARIANTS = {
    "separate, no distillation": SEPARATE | dict.fromkeys(KL, 0.0),
    "separate": SEPARATE,
    "separate, all weights 1": SEPARATE | dict.fromkeys(MATCHING, 1.0),
    "separate, 5e-4": SEPARATE | {"learning-rate": 5e-4},
    "nested": NESTED,
    "nested, 5e-4": NESTED | {"learning-rate": 5e-4},
    "nested, 5e-4, 64x": {},
    "nested, 5e-4, 64x, no error feedback": {"error-feedback": "none"},
    "nested, 5e-4, 64x, KL into the teacher only": {"student-kl-weight": 0.0},
}
METRICS = ("accuracy", "macro-f1", "loss")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    common = {"num-rounds": 4, "local-steps": 8, "batch-size": 32, "evaluate-every": 2}
    scenarios = tweets()
    found = run_all(arguments.out, scenarios, VARIANTS, range(arguments.seeds), common, arguments.jobs)
    print(f"{date.today()}, {arguments.seeds} seeds, {common}")
    head = ["round", "MB/node", *(f"{who} {metric}" for who in ("student", "teachers") for metric in METRICS)]
    print(f"\n| run | {' | '.join(head)} |\n|---{'|---' * len(head)}|")
    for variant in VARIANTS:
        for line in rows(found["tweets", variant], scenarios["tweets"].nodes, METRICS):
            print(f"| {variant} | {' | '.join(line)} |")


if __name__ == "__main__":
    main()
