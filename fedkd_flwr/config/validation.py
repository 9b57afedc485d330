"""What keys of a run config must have in common: each rule raises a ValueError that says what to set."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from fedkd_flwr.config.sources import kinds_of, sources_of
from fedkd_flwr.tasks.metrics import METRICS

if TYPE_CHECKING:
    from fedkd_flwr.config.schema import RunConfig

_BY_LABEL = {
    "dirichlet": ("text-classification", "image-classification"),
    "shard": ("text-classification", "image-classification", "regression"),
}
"""Partitions by label, and the tasks whose examples have one each: a class, or for shards a number."""

_OF_TEXTS = ("text-classification", "multi-label", "regression")
_READ_WITH: dict[str, tuple[str, tuple[str | int, ...]]] = {
    "budget": ("codec", ("budget", "auto")),
    "energy-start": ("codec", ("energy",)),
    "energy-end": ("codec", ("energy",)),
    "dirichlet-alpha": ("partition", ("dirichlet",)),
    "shards-per-node": ("partition", ("shard",)),
    "local-epochs": ("local-steps", (0,)),
    "teacher-own-share": ("architecture", ("nested",)),
    "pooling": ("task", _OF_TEXTS),
    "label-separator": ("task", ("multi-label",)),
    "max-history": ("task", ("news-recommendation",)),
    "text-column": ("task", (*_OF_TEXTS, "token-classification")),
    "label-column": ("task", (*_OF_TEXTS, "token-classification")),
}
"""Keys that are read only where another key has one of these values."""


def _every_key_is_read(config: "RunConfig") -> None:
    """A key that would change nothing is a mistake where it is not at its default.

    But not where the method decides: methods are compared with one switch, under one budget.
    """
    values, fields = config.as_run_config(), type(config).model_fields
    unread = [
        f"{key} is {values[key]!r} but {other} {values[other]!r} does not read it: leave it out, or set {other} to "
        + " or ".join(map(repr, readers))
        for key, (other, readers) in _READ_WITH.items()
        if values[key] != fields[key.replace("-", "_")].default
        and values[other] not in readers
        and other not in config.parts.fixes
    ]
    if unread:
        raise ValueError("; ".join(unread))


def _energies_rise(config: "RunConfig") -> None:
    if config.energy_end < config.energy_start:
        raise ValueError(f"energy-end must be at least energy-start ({config.energy_start})")


def _codec_has_these_bits(config: "RunConfig") -> None:
    if config.codec == "rotated" and config.bits > 4:
        raise ValueError(
            f"codec 'rotated' sends 1 to 4 bits a number, not {config.bits}: set bits to 1 ... 4, or 0 for 4"
        )
    if config.codec != "rotated" and config.bits in (1, 2):
        raise ValueError(
            f"bits {config.bits} are for codec 'rotated' only: set bits to 3 or more, or codec to 'rotated'"
        )


def _data_fit_the_task(config: "RunConfig") -> None:
    for key, source in (("dataset", config.dataset), ("server-test-data", config.server_test_data)):
        if source not in ("", "tweets") and source.partition(":")[0] not in kinds_of(config.task):
            raise ValueError(
                f"{key} is {source!r} but task is {config.task!r}: set it to {sources_of(config.task)}, or the task"
            )


def _pairs_are_of_two_texts(config: "RunConfig") -> None:
    if not config.text_pair_column:
        return
    if config.task not in ("text-classification", "multi-label", "regression"):
        raise ValueError(f"task {config.task!r} reads no pairs of texts: empty text-pair-column")
    if config.text_pair_column == config.text_column:
        raise ValueError(
            f"text-pair-column and text-column are both {config.text_column!r}: set it to the column of the second text"
        )


def _partition_fits_the_data(config: "RunConfig") -> None:
    if config.dataset.startswith("iob:") and config.partition != "natural":
        raise ValueError("a dataset of kind iob has a folder for each node: set partition to 'natural'")
    if config.dataset.startswith("imagefolder:") and config.partition == "natural":
        raise ValueError("images have no column of owners: set partition to 'iid' or 'dirichlet'")
    if config.task not in _BY_LABEL.get(config.partition, (config.task,)):
        raise ValueError(
            f"partition {config.partition!r} needs one class an example, task is {config.task!r}: set it to 'iid'"
        )


def _labels_are_named_once(config: "RunConfig") -> None:
    if config.task != "regression" and len(set(config.label_names)) < len(config.label_names):
        raise ValueError("labels names a label twice: name each once")


def _rows_have_one_label(config: "RunConfig") -> None:
    if config.skip_unlabelled and config.task not in ("text-classification", "regression"):
        raise ValueError(f"skip-unlabelled is for texts with one label, task is {config.task!r}: set it to false")


def _labels_fit_the_task(config: "RunConfig") -> None:
    if config.task == "news-recommendation" and config.labels:
        raise ValueError("news has no labels: empty labels")
    if config.task == "regression" and config.labels:
        try:
            low, high = map(float, config.label_names)
        except ValueError:
            low = high = 0.0
        if not -math.inf < low < high < math.inf:
            raise ValueError(
                f"labels is {config.labels!r} but should be the lowest and the highest number of a regression: '1,5'"
            )


def _weighted_classes_are_named(config: "RunConfig") -> None:
    if config.class_weights == "none":
        return
    if config.task in ("regression", "news-recommendation"):
        raise ValueError(f"task {config.task!r} has no classes to weigh: set class-weights to 'none'")
    if config.class_weights != "balanced" and (found := config.class_weights.count(",") + 1) != len(config.label_names):
        raise ValueError(
            f"class-weights has {found} numbers and labels {len(config.label_names)} names: set labels to all of them, "
            "in the order of the numbers"
        )


def _adjusted_labels_have_shares(config: "RunConfig") -> None:
    if config.logit_adjustment == "always" and config.task in (
        "token-classification",
        "regression",
        "news-recommendation",
    ):
        raise ValueError(f"task {config.task!r} has no logits to adjust: set logit-adjustment to 'auto' or 'never'")


def _probed_heads_are_linear(config: "RunConfig") -> None:
    if config.linear_probe == "always" and config.task == "news-recommendation":
        raise ValueError("news has no linear head to fit: set linear-probe to 'auto' or 'never'")


def _nested_is_one_model(config: "RunConfig") -> None:
    if config.architecture == "nested":
        if config.student or config.pooling != "mean":
            raise ValueError("architecture 'nested' needs an empty student and pooling 'mean': or set it to 'separate'")
        for key, value in config.as_run_config().items():
            if key in ("hidden-weight", "attention-weight") and value != 0:
                raise ValueError(f"architecture 'nested' has no layers to match: set {key} to 0.0, or it to 'separate'")


def _batch_norm_has_batches(config: "RunConfig") -> None:
    if config.batch_norm == "refuse":
        return
    if config.task != "image-classification":
        raise ValueError(f"batch-norm 'local' is for models of images, task is {config.task!r}: set it to 'refuse'")
    if config.batch_size < 2:
        raise ValueError("batch-norm 'local' takes statistics of batches: set batch-size to 2 or more")
    if config.server_test_data:
        raise ValueError(
            "batch-norm 'local' leaves the server without statistics to score a student with: empty server-test-data"
        )


def _more_of_the_teacher_than_the_student(config: "RunConfig") -> None:
    if config.shared_layers:
        if config.architecture != "nested":
            raise ValueError("shared-layers is for architecture 'nested': set it to 0")
        if config.shared_layers < config.student_layers:
            raise ValueError(
                f"shared-layers is {config.shared_layers}, the student has {config.student_layers} layers and all of "
                "them travel: set it to 0, or to more"
            )
        if config.teacher_lora_rank and config.shared_layers > config.student_layers:
            raise ValueError("teacher-lora-rank is for layers that stay at the node: set it or shared-layers to 0")


def _few_updates_are_clipped(config: "RunConfig") -> None:
    if 0 < config.max_update_norm < 1:
        raise ValueError("max-update-norm below 1 would shorten most updates: set it to 0.0, or to 1.0 or more")


def _best_is_by_a_score(config: "RunConfig") -> None:
    if not config.keep_best:
        if config.early_stopping:
            raise ValueError(
                "early-stopping needs a score to wait for: set keep-best, to 'student.loss' say, or it to 0"
            )
        return
    trains = config.parts.trains
    there = {
        "student": "student" in trains,
        "student-own-labels": config.adjusts_logits,
        "teacher": "teacher" in trains,
        "server": bool(config.server_test_data) and "student" in trains,
    }
    models = [model for model, exists in there.items() if exists]
    names = METRICS[config.task].names
    model, _, name = config.keep_best.partition(".")
    if model not in models or name not in names:
        raise ValueError(
            f"keep-best is {config.keep_best!r} but should be MODEL.SCORE: MODEL {' | '.join(models)} in this run, "
            f"SCORE {' | '.join(names)} of task {config.task!r}"
        )


_RULES: tuple[Callable[["RunConfig"], None], ...] = (
    _every_key_is_read,
    _energies_rise,
    _codec_has_these_bits,
    _data_fit_the_task,
    _pairs_are_of_two_texts,
    _partition_fits_the_data,
    _labels_are_named_once,
    _rows_have_one_label,
    _labels_fit_the_task,
    _weighted_classes_are_named,
    _adjusted_labels_have_shares,
    _probed_heads_are_linear,
    _nested_is_one_model,
    _batch_norm_has_batches,
    _more_of_the_teacher_than_the_student,
    _few_updates_are_clipped,
    _best_is_by_a_score,
)


def broken_rules(config: "RunConfig") -> list[str]:
    """What keys of a run config do not have in common, and what to set; empty where they fit together."""
    broken = []
    for rule in _RULES:
        try:
            rule(config)
        except ValueError as error:
            broken.append(str(error))
    return broken
