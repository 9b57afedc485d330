"""The one description of a run: every run-config key, validated; no other module reads raw run-config."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from fedkd_flwr.config.mistakes import mistakes_in
from fedkd_flwr.config.name_lists import LONGEST, MOST, names
from fedkd_flwr.config.owner import DATA_KEYS, owners_keys
from fedkd_flwr.config.sources import PREFIXES
from fedkd_flwr.config.validation import broken_rules
from fedkd_flwr.errors import ConfigError
from fedkd_flwr.names import require_identity

Value = bool | int | float | str


@dataclass(frozen=True)
class Method:
    """What a method is made of.

    Attributes:
        trains: the models that a node trains; what of them is the student travels.
        whole: the student is the whole teacher checkpoint, whatever `student-layers` says.
        adjusts: what `logit-adjustment = "auto"` means.
        probes: what `linear-probe = "auto"` means.
        codec: what `codec = "auto"` means.
        fixes: keys that are not the user's.
    """

    trains: frozenset[str] = frozenset({"teacher", "student"})
    whole: bool = False
    adjusts: bool = False
    probes: bool = False
    codec: str = "dense"
    fixes: Mapping[str, Value] = field(default_factory=dict)


METHODS = {
    "fedkd": Method(adjusts=True, probes=True, codec="budget"),
    "fedkd-paper": Method(
        codec="energy",
        fixes={
            "architecture": "separate",
            "shared-layers": 0,
            "loss": "paper",
            "logit-adjustment": "never",
            "linear-probe": "never",
            "distillation-warm-up": 0,
            "teacher-kl-weight": 1.0,
            "student-kl-weight": 1.0,
            "hidden-weight": 1.0,
            "attention-weight": 1.0,
            "codec": "energy",
            "energy-start": 0.95,
            "energy-end": 0.98,
            "bits": 32,
            "error-feedback": "none",
        },
    ),
    "fml": Method(fixes={"distillation-warm-up": 0, "teacher-kl-weight": 1.0, "student-kl-weight": 1.0}),
    "fedavg": Method(trains=frozenset({"student"}), whole=True),
    "fedavg-student": Method(trains=frozenset({"student"})),
    "local": Method(trains=frozenset({"teacher"}), fixes={"codec": "dense"}),
}

# What may differ between a run and the run that resumes it: none of it changes what a round gives, but that rates,
# energies and budgets that follow the number of rounds go by the new one.
_FREE_ON_RESUME = {
    "resume", "run-name", "runs-dir", "state-dir", "num-rounds", "early-stopping", "keep-checkpoints",
    "node-wait-seconds", "round-timeout-seconds", "device", "precision", "threads",
}  # fmt: skip


_NODE_KEYS = {"device", "precision", "threads", "state-dir", "teacher-lora-rank"} | DATA_KEYS
"""Run-config keys that a node's owner may set for their node through the node config."""

_NODE_OWN = {"name", "partition-id", "num-partitions", "data-path", "teacher", "policy"}
"""The other keys of a node config: who the node is, its data, its teacher, what of it may leave."""

_POSITIVE = r"(0*[1-9][0-9]*(\.[0-9]+)?|0+\.0*[1-9][0-9]*)"
_SOURCE = f"({'|'.join(PREFIXES)}):.+"
_SOURCES = " or ".join(", ".join(f"{prefix}:PATH" for prefix in PREFIXES).rsplit(", ", 1))


def _kebab(name: str) -> str:
    return name.replace("_", "-")


def _snake(key: str) -> str:
    return key.replace("-", "_")


class RunConfig(BaseModel):
    """A validated run; pyproject.toml lists the keys with these defaults and explains each.

    A key may be written as in run-config (`num-rounds`) or as in Python (`num_rounds`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=_kebab, allow_inf_nan=False)

    method: Literal["fedkd", "fedkd-paper", "fml", "fedavg", "fedavg-student", "local"] = "fedkd"
    task: Literal[
        "text-classification",
        "token-classification",
        "image-classification",
        "multi-label",
        "regression",
        "news-recommendation",
    ] = "text-classification"
    num_rounds: int = Field(6, ge=1)
    seed: int = Field(0, ge=0, lt=2**32)

    teacher: str = Field("minilm-l6", min_length=1)
    teachers: str = ""
    teacher_lora_rank: int = Field(0, ge=0)
    student: str = ""
    student_layers: int = Field(3, ge=1)
    shared_layers: int = Field(0, ge=0)
    teacher_own_share: float = Field(0.5, ge=0, le=1)
    shared_head: Literal["auto", "always", "never"] = "auto"
    architecture: Literal["separate", "nested"] = "nested"
    pooling: Literal["mean", "model"] = "mean"
    batch_norm: Literal["refuse", "local"] = "refuse"
    max_length: int = Field(64, ge=2)
    max_history: int = Field(50, ge=1)

    dataset: str = Field("tweets", pattern=rf"^(tweets|{_SOURCE})$", description=f"tweets, {_SOURCES}")
    text_column: str = Field("text", min_length=1)
    text_pair_column: str = ""
    label_column: str = Field("label", min_length=1)
    label_separator: str = Field(";", min_length=1)
    labels: str = ""
    skip_unlabelled: bool = False
    separator: str = Field("auto", pattern=r'^(auto|tab|[^"\s])$', description="auto, tab, or one character such as ;")
    encoding: str = Field("utf-8", min_length=1)
    partition: Literal["natural", "iid", "dirichlet", "shard"] = "natural"
    partition_column: str = "source"
    dirichlet_alpha: float = Field(0.5, gt=0)
    shards_per_node: int = Field(2, ge=1)
    test_fraction: float = Field(0.1, gt=0, lt=1)
    max_test_examples: int = Field(200, ge=0)
    server_test_data: str = Field("", pattern=rf"^({_SOURCE})?$", description=f"empty, {_SOURCES}")

    batch_size: int = Field(32, ge=1)
    gradient_accumulation: int = Field(1, ge=1)
    local_steps: int = Field(8, ge=0)
    local_epochs: int = Field(1, ge=1)
    learning_rate: float = Field(0.0005, gt=0)
    teacher_learning_rate: float = Field(0.0002, gt=0)
    head_learning_rate_factor: float = Field(10.0, gt=0)
    learning_rate_warm_up: int = Field(16, ge=0)
    learning_rate_decay: Literal["staged", "never"] = "staged"
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, ge=0)

    class_weights: str = Field(
        "none",
        pattern=rf"^(none|balanced|{_POSITIVE}( *, *{_POSITIVE})+)$",
        description="none, balanced, or a positive number for each of the labels, such as 1,5",
    )
    logit_adjustment: Literal["auto", "always", "never"] = "auto"
    linear_probe: Literal["auto", "always", "never"] = "auto"
    loss: Literal["stable", "paper"] = "stable"
    distillation_warm_up: int = Field(40, ge=0)
    teacher_kl_weight: float = Field(0.0, ge=0)
    student_kl_weight: float = Field(1.0, ge=0)
    hidden_weight: float = Field(0.0, ge=0)
    attention_weight: float = Field(0.0, ge=0)

    codec: Literal["auto", "budget", "energy", "dense", "rotated"] = "auto"
    budget: str = Field(
        "384x",
        pattern=rf"^{_POSITIVE}(x|[kMG]?B(/run)?)$",
        description="a ratio to what travels, dense (128x), bytes of an update (100kB) or of a run (5MB/run)",
    )
    energy_start: float = Field(0.95, gt=0, le=1)
    energy_end: float = Field(0.98, gt=0, le=1)
    bits: Literal[0, 1, 2, 3, 4, 5, 6, 8, 16, 32] = 0
    error_feedback: Literal["none", "up", "down", "both"] = "both"

    fraction_train: float = Field(1.0, gt=0, le=1)
    min_train_nodes: int = Field(2, ge=1)
    min_success_share: float = Field(0.5, gt=0, le=1)
    aggregation: Literal["examples", "uniform", "median"] = "examples"
    max_update_norm: float = Field(3.0, ge=0)
    max_weight_share: float = Field(0.5, gt=0, le=1)
    evaluate_every: int = Field(1, ge=1)
    keep_best: str = ""
    early_stopping: int = Field(0, ge=0)
    node_wait_seconds: int = Field(120, ge=1)
    round_timeout_seconds: int = Field(3600, ge=1)

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    threads: int = Field(0, ge=0)

    runs_dir: str = Field("runs", min_length=1)
    run_name: str = Field(
        "", pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$", description="letters, digits, '.', '_' and '-', or empty"
    )
    keep_checkpoints: int = Field(2, ge=1)
    resume: str = ""
    state_dir: str = Field("state", min_length=1)

    @field_validator("labels", "teachers")
    @classmethod
    def _is_list(cls, value: str, info: ValidationInfo) -> str:
        try:
            names(value)
        except ValueError as error:
            raise ValueError(f"{info.field_name} {error}") from None
        return value

    @field_validator("labels")
    @classmethod
    def _is_bounded(cls, value: str) -> str:
        found = names(value)
        if len(found) > MOST or max(map(len, found), default=0) > LONGEST or not all(map(str.isprintable, found)):
            raise ValueError(f"labels should be at most {MOST} names of at most {LONGEST} printable characters")
        return value

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, value: str) -> str:
        try:
            "".encode(value)
        except LookupError:
            raise ValueError(f"encoding {value!r} is unknown: set it to utf-8, cp1252 or latin-1, say") from None
        return value

    @model_validator(mode="before")
    @classmethod
    def _as_the_method_fixes(cls, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Put in what the method fixes; a key that is set to something else is not overwritten but refused."""
        raw = {_kebab(key): value for key, value in raw.items()}
        method = str(raw.get("method", cls.model_fields["method"].default))
        defaults = {_kebab(name): field.default for name, field in cls.model_fields.items()}
        if clashes := fixed_otherwise(method, {k: v for k, v in raw.items() if v != defaults.get(k)}):
            raise ValueError("; ".join(clashes))
        return {**raw, **METHODS.get(method, Method()).fixes}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if broken := broken_rules(self):
            raise ValueError("; ".join(broken))
        return self

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> "RunConfig":
        """Validate a run-config mapping; keys that are left out have their defaults.

        Raises:
            ConfigError: one line with every offending key and what it allows.
        """
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise ConfigError("; ".join(mistakes_in(error, cls.model_fields).values())) from None

    @classmethod
    def mistakes(cls, raw: Mapping[str, Any]) -> dict[str, str]:
        """What is wrong with a run-config mapping, see `mistakes_in`."""
        try:
            cls.model_validate(raw)
        except ValidationError as error:
            return mistakes_in(error, cls.model_fields)
        return {}

    def for_node(self, node_config: Mapping[str, Any]) -> "RunConfig":
        """This run as the owner of a node wants it there.

        Raises:
            ConfigError: a node-config key is unknown or its value is not allowed; names the key.
        """
        unknown = sorted(set(node_config) - _NODE_KEYS - _NODE_OWN)
        if unknown:
            known = ", ".join(sorted(_NODE_KEYS | _NODE_OWN))
            raise ConfigError(
                f"node-config key {unknown[0]!r} is unknown: a node may set {known}",
                outside="a node-config key is unknown",
            )
        require_identity(node_config)
        own = owners_keys(self, {key: node_config[key] for key in _NODE_KEYS & set(node_config)}, node_config)
        return RunConfig.parse(self.as_run_config() | {"teachers": ""} | self._own_teacher(node_config) | own)

    def _own_teacher(self, node_config: Mapping[str, Any]) -> dict[str, Value]:
        """What differs where a node has a teacher of its own: a model apart from the student, which stays the run's."""
        turns, turn = self.teacher_names, node_config.get("partition-id")
        teacher = node_config.get("teacher") or (turns[int(turn) % len(turns)] if turns and turn is not None else "")
        if teacher in ("", self.teacher) or "teacher" not in self.parts.trains:
            return {}
        if self.shared_layers > self.student_layers:
            raise ConfigError(
                f"a node's own teacher {teacher!r} cannot take layers of the run's: leave it out of the node config, "
                "or set shared-layers to 0"
            )
        student = self.student or self.teacher
        fields = type(self).model_fields
        nested_only = {key: fields[_snake(key)].default for key in ("shared-layers", "teacher-own-share")}
        return {"teacher": teacher, "student": student, "architecture": "separate", **nested_only}

    def as_run_config(self) -> dict[str, Value]:
        """The kebab-case mapping that `parse` accepts."""
        return self.model_dump(by_alias=True)

    def differences(self, resumed: "RunConfig") -> list[str]:
        """Keys, with both values, that would make a resumed run another run than this one."""
        mine, theirs = self.as_run_config(), resumed.as_run_config()
        return [
            f"{key} was {mine[key]!r}, is {theirs[key]!r}"
            for key in mine
            if key not in _FREE_ON_RESUME and mine[key] != theirs[key]
        ]

    @property
    def digest(self) -> str:
        """SHA-256 of all that makes a resumed run another run."""
        kept = {key: value for key, value in self.as_run_config().items() if key not in _FREE_ON_RESUME}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()

    @property
    def parts(self) -> Method:
        """What the method is made of."""
        return METHODS[self.method]

    @property
    def codec_kind(self) -> str:
        """The codec of updates, `auto` decided by the method."""
        return self.parts.codec if self.codec == "auto" else self.codec

    @property
    def adjusts_logits(self) -> bool:
        """Whether heads that travel are adjusted to the label frequencies of each node."""
        return "student" in self.parts.trains and _decided(self.logit_adjustment, self.parts.adjusts)

    @property
    def fits_heads(self) -> bool:
        """Whether new heads are fitted to the encoder's outputs before it learns."""
        return _decided(self.linear_probe, self.parts.probes)

    @property
    def teacher_names(self) -> tuple[str, ...]:
        """The teachers that simulated nodes have in turn; empty where all have the same."""
        return names(self.teachers)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The label names that the user fixed; empty where the data decide."""
        return names(self.labels)


def fixed_otherwise(method: str, given: Mapping[str, Any]) -> list[str]:
    """A line for each key that is given and that the method fixes to another value."""
    return [
        f"{key} is {given[key]!r} but method {method!r} fixes it to {value!r}: leave it out, or choose another method"
        for key, value in METHODS.get(method, Method()).fixes.items()
        if key in given and given[key] != value
    ]


def _decided(setting: Literal["auto", "always", "never"], auto: bool) -> bool:
    return auto if setting == "auto" else setting == "always"
