"""What quality costs in bytes: methods and budgets at equal local steps.

    python benchmarks/traffic.py --out OUT [--adr FOLDER] [--seeds 0 1 2] [--scenarios NAME ...] [--jobs 2]

MB/node are encoded bytes up and down of one node, all rounds; kB are the budget of one update. Results:
benchmarks/results/methods.jsonl, shared with learning.py.
"""

from common import study
from learning import ADJUSTED, BUDGET, DEFAULT, START, STEPS
from learning import VARIANTS as METHODS

DENSE = (
    "FedAvg on the teacher",
    "FedAvg on the teacher, adjusted",
    "FedAvg on the teacher, adjusted, same start",
    "FedAvg on the student",
    "the paper",
)
FEDAVG = {"method": "fedavg", **BUDGET, **ADJUSTED}
KILOBYTES = (222, 55, 28)
"""Besides 111, which is what the variants of learning.py have; 55 are the default of pyproject.toml."""
VARIANTS = {
    **{name: METHODS[name] for name in DENSE},
    "fedkd": DEFAULT,
    **{f"fedkd, {kb} kB": DEFAULT | {"budget": f"{kb}kB"} for kb in KILOBYTES},
    "fedkd, 55 kB, 6 x 32 steps": METHODS["fedkd, 6 x 32 steps"] | {"budget": "55kB"},
    "fedkd, rotated to 1 bit": DEFAULT | {"codec": "rotated", "bits": 1},
    "FedAvg on the teacher, adjusted, same start, 111 kB": FEDAVG | START,
    "FedAvg on the teacher, adjusted, 111 kB": FEDAVG,
    **{
        f"FedAvg on the teacher, adjusted, same start, {kb} kB": FEDAVG | START | {"budget": f"{kb}kB"}
        for kb in KILOBYTES
    },
}

if __name__ == "__main__":
    study("methods", __doc__ or "", VARIANTS, STEPS)
