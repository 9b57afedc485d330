"""Mutual distillation of a private teacher and a shared student (FedKD, Eqs 1-7); knows no Flower."""

from fedkd_flwr.distillation.linear_probe import fit_heads
from fedkd_flwr.distillation.losses import Outputs, PairLoss, TaskLosses, Weights, pair_loss
from fedkd_flwr.distillation.nested import TOKENS, Head, Nested, layer_lists, require_layers
from fedkd_flwr.distillation.optimizer import build_optimizer, load_moments, moments
from fedkd_flwr.distillation.pair import (
    PLACES,
    SEGMENTS,
    Pair,
    Single,
    batch_norms,
    inputs_of,
    trainable,
)
from fedkd_flwr.distillation.parameter_groups import TEACHER, ParameterGroups
from fedkd_flwr.distillation.schedule import Rate, Schedule, grown, loss_weights, used_up
from fedkd_flwr.distillation.separate import TeacherStudent, layer_map
from fedkd_flwr.distillation.trainer import LocalTraining, TrainingSummary

__all__ = [
    "PLACES",
    "SEGMENTS",
    "TEACHER",
    "TOKENS",
    "Head",
    "LocalTraining",
    "Nested",
    "Outputs",
    "Pair",
    "PairLoss",
    "ParameterGroups",
    "Rate",
    "Schedule",
    "Single",
    "TaskLosses",
    "TeacherStudent",
    "TrainingSummary",
    "Weights",
    "batch_norms",
    "build_optimizer",
    "fit_heads",
    "grown",
    "inputs_of",
    "layer_lists",
    "layer_map",
    "load_moments",
    "loss_weights",
    "moments",
    "pair_loss",
    "require_layers",
    "trainable",
    "used_up",
]
