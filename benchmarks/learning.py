"""How fast students and teachers learn, by method, at equal local steps.

    python benchmarks/learning.py --out OUT [--adr FOLDER] [--seeds 0 1 2] [--scenarios NAME ...] [--jobs 2]

Results: benchmarks/results/methods.jsonl, shared with traffic.py. `--quick` runs six methods on one seed, takes
no result that stands there, and keeps its own in OUT; what it printed is docs/results/quick.md.
"""

from common import study

STEPS = {
    "num-rounds": 6,
    "federation.evaluate-every": 2,
    "train.local-steps": 8,
    "train.batch-size": 16,
    "train.learning-rate": 5e-4,
    "train.teacher-learning-rate": 2e-4,
    "model.student-layers": 2,
    "train.logit-adjustment": "never",
    "train.linear-probe": "never",
    "train.learning-rate-warm-up": 0,
    "train.learning-rate-decay": "never",
    "model.teacher-own-share": 0.5,
    "data.max-test-examples": 150,
    "run.precision": "bf16",
}
"""Of every run: 48 steps of 16 examples at each node, a student of two layers."""

BUDGET = {"codec.kind": "budget", "codec.budget": "111kB", "codec.error-feedback": "both"}
ADJUSTED = {"train.logit-adjustment": "always"}
PROBED = {"train.linear-probe": "always"}
WARMED_UP = PROBED | {"train.learning-rate-warm-up": 16}
START = WARMED_UP | {"train.learning-rate-decay": "staged"}
NESTED = {
    "method": "fedkd",
    "model.architecture": "nested",
    "model.shared-layers": 0,
    "distillation.teacher-kl": 0.0,
    "distillation.student-kl": 1.0,
    **BUDGET,
    **ADJUSTED,
}
THREE = NESTED | {"model.student-layers": 3}
FEDKD = THREE | START | {"codec.budget": "55kB"}
NO_KL = {"distillation.student-kl": 0.0}
VARIANTS = {
    "FedAvg on the teacher": {"method": "fedavg", "codec.kind": "dense"},
    "FedAvg on the teacher, adjusted": {"method": "fedavg", "codec.kind": "dense"} | ADJUSTED,
    "FedAvg on the teacher, adjusted, same start": {"method": "fedavg", "codec.kind": "dense"} | ADJUSTED | START,
    "FedAvg on the student": {"method": "fedavg-student", "codec.kind": "dense"},
    "FedAvg on the student, 3 layers, adjusted, same start": {
        "method": "fedavg-student",
        "codec.kind": "dense",
        "model.student-layers": 3,
    }
    | ADJUSTED
    | START,
    "teachers alone": {"method": "local"},
    "teachers alone, same start, constant rates": {"method": "local"} | WARMED_UP,
    "teachers alone, same start": {"method": "local"} | START,
    "the paper": {"method": "fedkd-paper"},
    "nested": NESTED,
    "nested, not adjusted": NESTED | {"train.logit-adjustment": "never"},
    "nested, no KL": NESTED | NO_KL,
    "nested, 3 layers": THREE,
    "nested, 3 layers, probed": THREE | PROBED,
    "fedkd, 111 kB, constant rates": THREE | WARMED_UP,
    "fedkd, 111 kB": FEDKD | {"codec.budget": "111kB"},
    "fedkd": FEDKD,
    "fedkd, no KL": FEDKD | NO_KL,
    "fedkd, no feedback downwards": FEDKD | {"codec.error-feedback": "up"},
    "fedkd, separate": FEDKD | {"model.architecture": "separate"},
    "fedkd, separate, no KL": FEDKD | NO_KL | {"model.architecture": "separate"},
    "fedkd, five layers travel": FEDKD | {"model.shared-layers": 5},
    "fedkd, all layers travel": FEDKD | {"model.shared-layers": 6},
    "nested, all layers travel": NESTED | NO_KL | {"model.shared-layers": 6},
}
MEAN = {"model.teacher-own-share": 0.0}
"""Teachers use the mean of the layers that travel. (In 48 steps they do by default.)"""
HALF = {"train.learning-rate": 2.5e-4}
"""The rate of what travels."""
LONG = (
    "FedAvg on the teacher",
    "FedAvg on the teacher, adjusted, same start",
    "FedAvg on the student",
    "FedAvg on the student, 3 layers, adjusted, same start",
    "teachers alone",
    "teachers alone, same start",
    "fedkd",
    "fedkd, no KL",
    "fedkd, all layers travel",
)
LONGER = {32: 6, 128: 2}
"""Rounds of so many local steps instead of 6 of 8."""
for steps, rounds in LONGER.items():
    longer = {"train.local-steps": steps, "num-rounds": rounds, "federation.evaluate-every": rounds // 2}
    end = f"{rounds} x {steps} steps"
    VARIANTS |= {f"{name}, {end}": VARIANTS[name] | longer for name in LONG}
    fedkd = VARIANTS[f"fedkd, {end}"]
    VARIANTS |= {
        f"fedkd, half the rate of what travels, {end}": fedkd | HALF,
        f"fedkd, mean layers, {end}": fedkd | MEAN,
    }

QUICK = (
    "FedAvg on the teacher",
    "FedAvg on the student",
    "teachers alone",
    "the paper",
    "fedkd, separate",
    "fedkd",
)

if __name__ == "__main__":
    study("methods", __doc__ or "", VARIANTS, STEPS, QUICK)
