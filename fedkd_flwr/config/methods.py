"""The methods: each a preset of a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedkd_flwr.config.groups import Value
from fedkd_flwr.runtime.registry import Registry


@dataclass(frozen=True)
class Method:
    """A method.

    Attributes:
        title: what a model card says of it.
        trains: the models that a node trains; the student's parameters are the shared ones.
        whole: the student is the whole teacher checkpoint, whatever `model.student-layers` says.
        codec: the meaning of `codec.kind = "auto"`.
        fixes: run-config keys that are not the user's, with their values.
        defaults: run-config keys with another default: their usual one stands for it.
    """

    title: str
    trains: frozenset[str] = frozenset({"teacher", "student"})
    whole: bool = False
    codec: str = "dense"
    fixes: Mapping[str, Value] = field(default_factory=dict)
    defaults: Mapping[str, Value] = field(default_factory=dict)


_PRESETS = {
    "fedkd": Method(
        "FedKD: each node trains a private teacher and the shared student, each teaching the other",
        codec="budget",
    ),
    "fedkd-paper": Method(
        "FedKD as in the paper: each node trains a private teacher and the shared student",
        codec="energy",
        fixes={
            "model.architecture": "separate",
            "model.shared-layers": 0,
            "train.logit-adjustment": "never",
            "train.linear-probe": "never",
            "train.proximal": 0.0,
            "distillation.loss": "paper",
            "distillation.strength": 1.0,
            "distillation.teacher-kl": 1.0,
            "distillation.student-kl": 1.0,
            "distillation.hidden": 1.0,
            "distillation.attention": 1.0,
            "codec.kind": "energy",
            "codec.energy-start": 0.95,
            "codec.energy-end": 0.98,
            "codec.bits": 32,
            "codec.error-feedback": "none",
        },
    ),
    "fml": Method(
        "federated mutual learning: each node trains a private teacher and the shared student, sent dense",
        fixes={
            "distillation.loss": "stable",
            "distillation.strength": 1.0,
            "distillation.teacher-kl": 1.0,
            "distillation.student-kl": 1.0,
        },
    ),
    "fedavg": Method(
        "FedAvg: each node trains the whole model, whose mean is taken",
        trains=frozenset({"student"}),
        whole=True,
    ),
    "fedavg-lora": Method(
        "FedAvg of adapters: each node trains low-rank adapters on the whole model, and its head, and means are taken",
        trains=frozenset({"student"}),
        whole=True,
        defaults={"model.lora-rank": 8},
    ),
    "fedprox": Method(
        "FedProx: each node trains the whole model, held near the one that it received, and the mean is taken",
        trains=frozenset({"student"}),
        whole=True,
        defaults={"train.proximal": 0.01},
    ),
    "fedpaq": Method(
        "FedPAQ: each node trains the whole model, and the mean of the quantised updates is taken",
        trains=frozenset({"student"}),
        whole=True,
        fixes={"codec.kind": "dense", "codec.error-feedback": "none"},
        defaults={"codec.bits": 8},
    ),
    "onebit": Method(
        "FedAvg at one bit a number: each node trains the whole model, and what rounding drops is sent later",
        trains=frozenset({"student"}),
        whole=True,
        fixes={"codec.kind": "rotated", "codec.bits": 1, "codec.error-feedback": "both"},
    ),
    "fedavg-student": Method(
        "FedAvg: each node trains the small model, whose mean is taken",
        trains=frozenset({"student"}),
    ),
    "local": Method(
        "each node trains a model of its own, alone",
        trains=frozenset({"teacher"}),
        fixes={"codec.kind": "dense", "train.proximal": 0.0},
    ),
}

METHODS = Registry("method", _PRESETS)
"""By the value of run-config key `method`."""


def fixes_of(method: str) -> Mapping[str, Value]:
    """The keys that a method fixes; none where there is no such method."""
    return METHODS[method].fixes if method in METHODS else {}


def defaults_of(method: str) -> Mapping[str, Value]:
    """The keys that have another default with a method; none where there is no such method."""
    return METHODS[method].defaults if method in METHODS else {}


def fixed_otherwise(method: str, given: Mapping[str, Any]) -> list[str]:
    """A line for each key that is given and that the method fixes to another value."""
    return [
        f"{key} is {given[key]!r} but method {method!r} fixes it to {value!r}: leave it out, or choose another method"
        for key, value in fixes_of(method).items()
        if key in given and given[key] != value
    ]
