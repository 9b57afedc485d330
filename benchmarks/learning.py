"""How fast students and teachers learn, by method, at equal local steps.

    python benchmarks/learning.py --out OUT [--adr FOLDER] [--seeds 0 1 2] [--scenarios NAME ...] [--jobs 2]

With `--seeds 0` it is the quick form. Results: benchmarks/results/methods.jsonl, shared with traffic.py.
"""

from common import study

STEPS = {
    "num-rounds": 6,
    "evaluate-every": 2,
    "local-steps": 8,
    "batch-size": 16,
    "learning-rate": 5e-4,
    "teacher-learning-rate": 2e-4,
    "max-test-examples": 150,
    "precision": "bf16",
}
"""Of every run: 48 steps of 16 examples at each node."""

KL = ("teacher-kl-weight", "student-kl-weight")
BUDGET = {"codec": "budget", "budget": "222kB", "error-feedback": "both"}
NO_KL = dict.fromkeys(KL, 0.0)
NESTED = {
    "method": "fedkd",
    "architecture": "nested",
    "shared-layers": 0,
    **BUDGET,
    **dict.fromkeys(KL, 1.0),
    "distillation-warm-up": 0,
}
SEPARATE = NESTED | {"architecture": "separate"}
TAUGHT = NESTED | {"teacher-kl-weight": 0.0, "distillation-warm-up": 5}
"""The default."""

ALL = NESTED | {"shared-layers": 6}
VARIANTS = {
    "FedAvg on the teacher": {"method": "fedavg", "codec": "dense"},
    "FedAvg on the student": {"method": "fedavg-student", "codec": "dense"},
    "teachers alone": {"method": "local"},
    "the paper": {"method": "fedkd-paper"},
    "separate": SEPARATE,
    "nested, no KL": NESTED | NO_KL,
    "nested, KL into the student": TAUGHT | {"distillation-warm-up": 0},
    "nested, KL into the student, warmed up": TAUGHT,
    "nested": NESTED,
    "nested, all layers travel, no KL": ALL | NO_KL,
}

MORE = {
    f"{name}, batches of 32": {**VARIANTS[name], "batch-size": 32}
    for name in ("nested, no KL", "nested, KL into the student", "nested, KL into the student, warmed up", "nested")
}
"""Whether KL helps where a node trains more."""

if __name__ == "__main__":
    study("methods", __doc__ or "", VARIANTS | MORE, STEPS)
