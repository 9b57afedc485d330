"""What keys of a run config must have in common: each rule raises a ValueError that says what to set."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from fedkd_flwr.config.codecs import CODECS
from fedkd_flwr.config.methods import METHODS
from fedkd_flwr.config.sources import BUNDLED, named_for, source_of
from fedkd_flwr.config.tasks import TASKS
from fedkd_flwr.runtime.registry import readers_of

if TYPE_CHECKING:
    from fedkd_flwr.config.schema import RunConfig

_BY_LABEL = ("dirichlet", "shard")
"""Partitions for which an example has one label: a class, or for shards a number."""

_READ_WITH: dict[str, tuple[str, tuple[str | int, ...]]] = {
    "data.dirichlet-alpha": ("data.partition", ("dirichlet",)),
    "model.teacher-own-share": ("model.architecture", ("nested",)),
}
"""Keys that are read only where another key has one of these values."""


def _every_key_is_read(config: "RunConfig") -> None:
    """A key that would change nothing is a mistake where it is not at its default.

    But not where the method decides: methods are compared with one switch, under one budget.
    """
    values, defaults = config.as_run_config(), config.defaults()
    read_with = dict(_READ_WITH)
    for key in values:
        if tasks := readers_of(key, TASKS):
            read_with[key] = ("task", tasks)
        if codecs := readers_of(key, CODECS):
            free = any(m.codec in codecs for m in METHODS.values() if "codec.kind" not in m.fixes)
            read_with[key] = ("codec.kind", (*codecs, "auto") if free else codecs)
    unread = [
        f"{key} is {values[key]!r} but {other} {values[other]!r} does not read it: leave it out, or set {other} to "
        + " or ".join(map(repr, readers))
        for key, (other, readers) in read_with.items()
        if values[key] != defaults[key] and values[other] not in readers and other not in config.parts.fixes
    ]
    if unread:
        raise ValueError("; ".join(unread))


def _energies_rise(config: "RunConfig") -> None:
    if config.codec.energy_end < config.codec.energy_start:
        raise ValueError(f"codec.energy-end must be at least codec.energy-start ({config.codec.energy_start})")


def _codec_has_these_bits(config: "RunConfig") -> None:
    kind, bits = config.codec_kind, config.codec.bits
    has = CODECS[kind].bits
    if bits and bits not in has:
        others = " or ".join(repr(name) for name, spec in CODECS.items() if bits in spec.bits)
        raise ValueError(
            f"codec.kind {kind!r} sends {', '.join(map(str, has))} bits a number, not {bits}: set codec.bits to one of "
            f"these, or to 0, or codec.kind to {others}"
        )


def _data_fit_the_task(config: "RunConfig") -> None:
    inputs = config.task_spec.inputs
    for key, source in (("data.dataset", config.data.dataset), ("data.server-test-data", config.data.server_test_data)):
        found = source_of(source)
        if found is not None and source != BUNDLED and inputs not in found.readers:
            raise ValueError(
                f"{key} is {source!r} but task is {config.task!r}: set it to {named_for(inputs)}, or the task"
            )


def _pairs_are_of_two_texts(config: "RunConfig") -> None:
    if config.data.text_pair_column and config.data.text_pair_column == config.data.text_column:
        raise ValueError(
            f"data.text-pair-column and data.text-column are both {config.data.text_column!r}: set it to the "
            "column of the second text"
        )


def _partition_fits_the_data(config: "RunConfig") -> None:
    source, prefix = source_of(config.data.dataset), config.data.dataset.partition(":")[0]
    if source is not None and source.owners == "folder" and config.data.partition != "natural":
        raise ValueError(f"a dataset of kind {prefix} has a folder for each node: set data.partition to 'natural'")
    if source is not None and source.owners == "nothing" and config.data.partition == "natural":
        raise ValueError(
            f"{config.task_spec.inputs} have no column of owners: set data.partition to 'iid' or 'dirichlet'"
        )
    if config.data.partition in _BY_LABEL and config.data.partition not in config.task_spec.partitions:
        raise ValueError(
            f"data.partition {config.data.partition!r} needs one class an example, task is {config.task!r}: set it "
            "to 'iid'"
        )


def _labels_are_named_once(config: "RunConfig") -> None:
    if config.task_spec.has_classes and len(set(config.data.label_names)) < len(config.data.label_names):
        raise ValueError("data.labels names a label twice: name each once")


def _numbers_have_a_range(config: "RunConfig") -> None:
    if config.task_spec.labels == "number" and config.data.labels:
        try:
            low, high = map(float, config.data.label_names)
        except ValueError:
            low = high = 0.0
        if not -math.inf < low < high < math.inf:
            raise ValueError(
                f"data.labels is {config.data.labels!r} but should be the lowest and the highest number of a "
                f"{config.task}: '1,5'"
            )


def _weighted_classes_are_named(config: "RunConfig") -> None:
    if config.train.class_weights == "none":
        return
    if not config.task_spec.has_classes:
        raise ValueError(f"task {config.task!r} has no classes to weigh: set train.class-weights to 'none'")
    if config.train.class_weights != "balanced" and (found := config.train.class_weights.count(",") + 1) != len(
        config.data.label_names
    ):
        raise ValueError(
            f"train.class-weights has {found} numbers and data.labels {len(config.data.label_names)} names: set "
            "data.labels to all of them, "
            "in the order of the numbers"
        )


def _adjusted_labels_have_shares(config: "RunConfig") -> None:
    if config.train.logit_adjustment == "always" and not config.task_spec.adjusts:
        raise ValueError(
            f"task {config.task!r} has no logits to adjust: set train.logit-adjustment to 'auto' or 'never'"
        )


def _probed_heads_are_linear(config: "RunConfig") -> None:
    if config.train.linear_probe == "always" and not config.task_spec.linear_head:
        raise ValueError(f"task {config.task!r} has no linear head to fit: set train.linear-probe to 'auto' or 'never'")


def _nested_is_one_model(config: "RunConfig") -> None:
    if config.model.architecture == "nested":
        if config.model.student or config.model.pooling != "mean":
            raise ValueError(
                "model.architecture 'nested' needs an empty model.student and model.pooling 'mean': or set it to "
                "'separate'"
            )
        for key, value in config.as_run_config().items():
            if key in ("distillation.hidden", "distillation.attention") and value != 0:
                raise ValueError(
                    f"model.architecture 'nested' has no layers to match: set {key} to 0.0, or it to 'separate'"
                )


def _batch_norm_has_batches(config: "RunConfig") -> None:
    if config.model.batch_norm == "refuse":
        return
    if config.task_spec.inputs != "images":
        raise ValueError(
            f"model.batch-norm 'local' is for models of images, task is {config.task!r}: set it to 'refuse'"
        )
    if config.train.batch_size < 2:
        raise ValueError("model.batch-norm 'local' takes statistics of batches: set train.batch-size to 2 or more")
    if config.data.server_test_data:
        raise ValueError(
            "model.batch-norm 'local' leaves the server without statistics to score a student with: empty "
            "data.server-test-data"
        )


def _more_of_the_teacher_than_the_student(config: "RunConfig") -> None:
    if config.model.shared_layers:
        if config.model.architecture != "nested":
            raise ValueError("model.shared-layers is for model.architecture 'nested': set it to 0")
        if config.model.shared_layers < config.model.student_layers:
            raise ValueError(
                f"model.shared-layers is {config.model.shared_layers}, the student has "
                f"{config.model.student_layers} layers and all of "
                "them travel: set it to 0, or to more"
            )
        if config.model.lora_rank and config.model.shared_layers > config.model.student_layers:
            raise ValueError("model.lora-rank is for layers that stay at the node: set it or model.shared-layers to 0")


def _few_updates_are_clipped(config: "RunConfig") -> None:
    if 0 < config.federation.max_update_norm < 1:
        raise ValueError(
            "federation.max-update-norm below 1 would shorten most updates: set it to 0.0, or to 1.0 or more"
        )


def _best_is_by_a_score(config: "RunConfig") -> None:
    if not config.federation.keep_best:
        if config.federation.early_stopping:
            raise ValueError(
                "federation.early-stopping needs a score to wait for: set federation.keep-best, to 'student.loss' "
                "say, or it to 0"
            )
        return
    trains = config.parts.trains
    there = {
        "student": "student" in trains,
        "student-own-labels": config.adjusts_logits,
        "teacher": "teacher" in trains,
        "server": bool(config.data.server_test_data) and "student" in trains,
    }
    models = [model for model, exists in there.items() if exists]
    names = config.task_spec.metrics.names
    model, _, name = config.federation.keep_best.partition(".")
    if model not in models or name not in names:
        raise ValueError(
            f"federation.keep-best is {config.federation.keep_best!r} but should be MODEL.SCORE: MODEL "
            f"{' | '.join(models)} in this run, "
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
    _numbers_have_a_range,
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
