"""What quality costs in bytes: methods and budgets at equal local steps.

    python benchmarks/traffic.py --out OUT [--adr FOLDER] [--seeds 0 1 2] [--scenarios NAME ...] [--jobs 2]

MB/node are encoded bytes up and down of one node, all rounds; kB are the budget of one update. Results:
benchmarks/results/methods.jsonl, shared with learning.py.
"""

from common import study
from learning import BUDGET, STEPS, TAUGHT
from learning import VARIANTS as METHODS

DENSE = ("FedAvg on the teacher", "FedAvg on the student", "the paper")
FEDAVG = {"method": "fedavg", **BUDGET}
KILOBYTES = (111, 55)
VARIANTS = {
    **{name: METHODS[name] for name in DENSE},
    "nested, KL into the student, warmed up": TAUGHT,
    **{f"nested, KL into the student, warmed up, {kb} kB": TAUGHT | {"budget": f"{kb}kB"} for kb in KILOBYTES},
    "nested, KL into the student, warmed up, rotated to 1 bit": TAUGHT | {"codec": "rotated", "bits": 1},
    "nested, all layers travel, no KL": METHODS["nested, all layers travel, no KL"],
    "FedAvg on the teacher, 222 kB": FEDAVG,
    **{f"FedAvg on the teacher, {kb} kB": FEDAVG | {"budget": f"{kb}kB"} for kb in KILOBYTES},
}

if __name__ == "__main__":
    study("methods", __doc__ or "", VARIANTS, STEPS)
