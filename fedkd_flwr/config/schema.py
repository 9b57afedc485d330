"""The one description of a run: every run-config key, validated; no other module reads raw run-config."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import Field, ModelWrapValidatorHandler, ValidationError, field_validator, model_validator

from fedkd_flwr.config.groups import (
    CodecConfig,
    DataConfig,
    DistillationConfig,
    FederationConfig,
    Group,
    ModelConfig,
    ProcessConfig,
    TrainConfig,
    Value,
    kebab,
    one_of,
)
from fedkd_flwr.config.methods import METHODS, Method, defaults_of, fixed_otherwise, fixes_of
from fedkd_flwr.config.mistakes import mistakes_in
from fedkd_flwr.config.tasks import TASKS, TaskSpec
from fedkd_flwr.config.validation import broken_rules
from fedkd_flwr.errors import ConfigError

# What may differ between a run and the run that resumes it: none of it changes what a round gives, but that rates,
# energies and budgets that follow the number of rounds go by the new one.
_FREE_ON_RESUME = {
    "num-rounds", "federation.early-stopping", "federation.node-wait-seconds", "federation.round-timeout-seconds",
    "run.resume", "run.name", "run.runs-dir", "run.state-dir", "run.keep-checkpoints", "run.device", "run.precision",
    "run.threads",
}  # fmt: skip


class _MistakenConfigError(ConfigError):
    """Keys of a run-config are wrong.

    Attributes:
        by_key: what is wrong with each.
    """

    def __init__(self, by_key: dict[str, str]) -> None:
        super().__init__("; ".join(by_key.values()))
        self.by_key = by_key


class RunConfig(Group):
    """A validated run; without arguments, the default one.

    `RunConfig(num_rounds=3, train={"local_steps": 8})` and `RunConfig.parse({"num-rounds": 3, "train.local-steps": 8})`
    are the same run.

    Raises:
        ConfigError: one line with every key that is wrong, or that does not fit with others, and what it allows.
    """

    method: str = "fedkd"
    """preset of the other keys, to compare with or to use (docs/methods.md)"""
    task: str = "text-classification"
    """kind of examples, labels and scores (docs/tasks/)"""
    num_rounds: int = Field(default=6, ge=1)
    """rounds of local training and aggregation"""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """decides, with the other keys, the whole run"""

    model: ModelConfig = Field(default=ModelConfig())
    data: DataConfig = Field(default=DataConfig())
    train: TrainConfig = Field(default=TrainConfig())
    distillation: DistillationConfig = Field(default=DistillationConfig())
    codec: CodecConfig = Field(default=CodecConfig())
    federation: FederationConfig = Field(default=FederationConfig())
    run: ProcessConfig = Field(default=ProcessConfig())

    @field_validator("method")
    @classmethod
    def _is_a_method(cls, value: str) -> str:
        return one_of(METHODS, value)

    @field_validator("task")
    @classmethod
    def _is_a_task(cls, value: str) -> str:
        return one_of(TASKS, value)

    @model_validator(mode="before")
    @classmethod
    def _as_the_method_fixes(cls, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Put in what the method fixes, and its defaults; a key that it fixes and that is set otherwise is refused."""
        given = flat(raw)
        method = str(given.get("method", cls.model_fields["method"].default))
        defaults = cls.defaults()
        if clashes := fixed_otherwise(method, {k: v for k, v in given.items() if v != defaults.get(k)}):
            raise ValueError("; ".join(clashes))
        own = {k: v for k, v in defaults_of(method).items() if given.get(k, defaults[k]) == defaults[k]}
        return _nested({**given, **own, **fixes_of(method)})

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if broken := broken_rules(self):
            raise ValueError("; ".join(broken))
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _in_one_line(cls, raw: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validate(raw)
        except ValidationError as error:
            raise _MistakenConfigError(mistakes_in(error, documentation())) from None

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> "RunConfig":
        """Validate a run-config mapping, flat (`train.local-steps`) or nested; keys that are left out have defaults.

        Raises:
            ConfigError: one line with every offending key and what it allows.
        """
        return cls.model_validate(raw)

    @classmethod
    def mistakes(cls, raw: Mapping[str, Any]) -> dict[str, str]:
        """The mistakes of a run-config mapping by key, see `mistakes_in`."""
        try:
            cls.model_validate(raw)
        except _MistakenConfigError as error:
            return error.by_key
        return {}

    def changed(self, **changes: Mapping[str, Value] | Value) -> Self:
        """A copy with these top-level keys, or keys of groups, changed; it is not validated.

        Args:
            changes: in Python's spelling, such as `seed=3` or `data={"labels": "yes,no"}`.

        Raises:
            KeyError: there is no such key.
        """
        if unknown := flat(changes).keys() - self.as_run_config().keys():
            raise KeyError(min(unknown))
        values = {
            key: getattr(self, key).model_copy(update=value) if isinstance(value, Mapping) else value
            for key, value in changes.items()
        }
        return self.model_copy(update=values)

    def as_run_config(self) -> dict[str, Value]:
        """The flat mapping that `parse` accepts, as Flower has it: `train.local-steps` and so on."""
        return flat(self.model_dump(by_alias=True))

    @staticmethod
    def defaults() -> dict[str, Value]:
        """The default of each run-config key, by its name in a run-config."""
        return {key: default for key, default, _ in _keys()}

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
        """The parts of the method."""
        return METHODS[self.method]

    @property
    def task_spec(self) -> TaskSpec:
        """What the task says about itself."""
        return TASKS[self.task]

    @property
    def student_checkpoint(self) -> str:
        """The checkpoint that a student is, or is the first layers of."""
        return self.model.teacher if self.parts.whole else self.model.student or self.model.teacher

    @property
    def codec_kind(self) -> str:
        """The codec of updates, `auto` decided by the method."""
        return self.parts.codec if self.codec.kind == "auto" else self.codec.kind

    @property
    def adjusts_logits(self) -> bool:
        """Whether shared heads are adjusted to the label frequencies of each node."""
        return "student" in self.parts.trains and self.train.logit_adjustment != "never"

    @property
    def fits_heads(self) -> bool:
        """Whether new heads are fitted to the encoder's outputs before it learns."""
        return self.train.linear_probe != "never"


def flat(raw: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A run-config mapping with keys `GROUP.KEY` in the spelling of run-configs, whatever way it was nested."""
    found: dict[str, Any] = {}
    for name, value in raw.items():
        key = prefix + kebab(name)
        if isinstance(value, Group):
            found |= flat(value.model_dump(), f"{key}.")
        elif isinstance(value, Mapping):
            found |= flat(value, f"{key}.")
        else:
            found[key] = value
    return found


def documentation() -> dict[str, str]:
    """What each run-config key means, by its name in a run-config, in the order of the groups."""
    return {key: meaning for key, _, meaning in _keys()}


def _keys() -> Iterator[tuple[str, Value, str]]:
    for name, field in RunConfig.model_fields.items():
        if isinstance(group := field.default, Group):
            for inner, of_group in type(group).model_fields.items():
                yield f"{kebab(name)}.{kebab(inner)}", getattr(group, inner), of_group.description or ""
        else:
            yield kebab(name), field.default, field.description or ""


def _nested(given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in given.items():
        group, dot, rest = key.partition(".")
        if dot and isinstance(found.setdefault(group, {}), dict):
            found[group][rest] = value
        elif not dot:
            found[key] = value
    return found
