"""What quality costs in bytes: methods and budgets at equal local steps.

    python benchmarks/traffic.py --out OUT [--adr FOLDER] [--seeds 0 1 2] [--scenarios NAME ...] [--jobs 2]

MB/node are encoded bytes up and down of one node, all rounds; kB are the budget of one update. Results:
benchmarks/results/methods.jsonl, shared with learning.py.
"""

from common import study
from learning import ADJUSTED, BUDGET, FEDKD, START, STEPS
from learning import VARIANTS as METHODS

SHARED = (
    "FedAvg on the teacher",
    "FedAvg on the teacher, adjusted",
    "FedAvg on the teacher, adjusted, same start",
    "FedAvg on the student",
    "the paper",
    "fedkd, 111 kB",
    "fedkd",
)
FEDAVG = {"method": "fedavg", **BUDGET, **ADJUSTED}
VARIANTS = {
    **{name: METHODS[name] for name in SHARED},
    **{f"fedkd, {kb} kB": FEDKD | {"codec.budget": f"{kb}kB"} for kb in (222, 28)},
    "fedkd, rotated to 1 bit": FEDKD | {"codec.kind": "rotated", "codec.budget": "384x", "codec.bits": 1},
    "FedAvg on the teacher, adjusted, 111 kB": FEDAVG,
    **{
        f"FedAvg on the teacher, adjusted, same start, {kb} kB": FEDAVG | START | {"codec.budget": f"{kb}kB"}
        for kb in (111, 55, 28)
    },
}

if __name__ == "__main__":
    study("methods", __doc__ or "", VARIANTS, STEPS)
