"""The groups of run-config keys, with their defaults: the one source of what a key is, allows and means.

The docstring of a key is its documentation: `fedkd config`, pyproject.toml and docs/configuration.md are made of it.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from fedkd_flwr.config.codecs import CODECS
from fedkd_flwr.config.name_lists import LONGEST, MOST, names
from fedkd_flwr.config.sources import BUNDLED, source_of

Value = bool | int | float | str
AutoSwitch = Literal["auto", "always", "never"]

_POSITIVE = r"(0*[1-9][0-9]*(\.[0-9]+)?|0+\.0*[1-9][0-9]*)"


def kebab(name: str) -> str:
    """The spelling of a Python name in a run-config."""
    return name.replace("_", "-")


def one_of(known: Mapping[str, Any], value: str, *others: str) -> str:
    """The value, if it is one of the others or a registry has it; otherwise pydantic's error of a `Literal`."""
    if value not in others and value not in known:
        *most, last = map(repr, (*others, *known))
        raise PydanticCustomError("literal_error", "Input should be {names}", {"names": f"{', '.join(most)} or {last}"})
    return value


class Group(BaseModel):
    """Keys that belong together; a key may be written as in run-config (`max-length`) or in Python (`max_length`)."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        alias_generator=kebab,
        validate_by_name=True,
        use_attribute_docstrings=True,
    )


class ModelConfig(Group):
    """Models of a client, and how much of them it shares."""

    teacher: str = Field(default="minilm-l6", min_length=1)
    """the teacher's checkpoint: bundled name, local folder or Hugging Face id"""
    teachers: str = ""
    """simulation: comma-separated teachers that the nodes have in turn; empty: all have `model.teacher`"""
    lora_rank: int = Field(default=0, ge=0)
    """rank of adapters (LoRA) in place of private layers, or of all where one model learns; 0: none (fedavg-lora: 8)"""
    student: str = ""
    """another checkpoint for the student; empty: the teacher's own first layers"""
    student_layers: int = Field(default=3, ge=1)
    """layers of the student"""
    shared_layers: int = Field(default=0, ge=0)
    """nested: first layers of the teacher that are shared; 0: the student's; all of them: and the head"""
    teacher_own_share: float = Field(default=0.5, ge=0, le=1)
    """nested: share of its own weights that a teacher keeps in shared layers, once their learning rates have fallen"""
    shared_head: AutoSwitch = "auto"
    """the student's head is shared; auto: where all nodes have the same labels | always | never"""
    architecture: Literal["separate", "nested"] = "nested"
    """nested: the student is the teacher's first layers | separate: two models"""
    pooling: Literal["mean", "model"] = "mean"
    """head of a text model; mean: linear, on mean-pooled tokens | model: the family's own classification head"""
    batch_norm: Literal["refuse", "local"] = "refuse"
    """models with batch normalisation (ResNet); refuse | local: these layers stay at each node (FedBN)"""
    max_length: int = Field(default=64, ge=2)
    """tokens of one example; longer texts are cut, longer sentences of tagged words are split"""
    max_history: int = Field(default=50, ge=1)
    """news recommendation: clicked news that describe a user, the latest first"""

    @field_validator("teachers")
    @classmethod
    def _are_names(cls, value: str) -> str:
        _listed(value, "model.teachers")
        return value

    @property
    def teacher_names(self) -> tuple[str, ...]:
        """The teachers that simulated nodes have in turn; empty where all have the same."""
        return names(self.teachers)


class DataConfig(Group):
    """Where examples come from, and how they are split."""

    dataset: str = "tweets"
    """tweets | csv:PATH | json:PATH | parquet:PATH | hf:PATH or id | iob:FOLDER | imagefolder:FOLDER | mind:FOLDER"""
    text_column: str = Field(default="text", min_length=1)
    """column of the text"""
    text_pair_column: str = ""
    """column of a second text, read after the first; empty: there is none"""
    label_column: str = Field(default="label", min_length=1)
    """column of the label"""
    label_separator: str = Field(default=";", min_length=1)
    """multi-label: what stands between the labels of a row, where they are no list"""
    labels: str = ""
    """comma-separated label names, "yes, sure" in quotes (regression: lowest, highest); empty: those of the data"""
    skip_unlabelled: bool = False
    """texts with one label: rows without one are left out, not refused"""
    separator: str = Field(default="auto", pattern=r'^(auto|tab|[^"\s])$')
    """csv: auto: a tab in .tsv, otherwise what the header shows | tab | one character, such as ;"""
    encoding: str = Field(default="utf-8", min_length=1)
    """of csv, json and iob files without a byte order mark: utf-8 | cp1252 | latin-1 | any that Python knows"""
    partition: Literal["natural", "iid", "dirichlet", "shard"] = "natural"
    """how simulated nodes share one dataset: natural: by `data.partition-column` | iid | dirichlet | shard"""
    partition_column: str = "source"
    """natural: column that names the owner of a row"""
    dirichlet_alpha: float = Field(default=0.5, gt=0)
    """dirichlet: concentration; smaller is more skewed"""
    test_fraction: float = Field(default=0.1, gt=0, lt=1)
    """share of a node's examples that is held out for evaluation"""
    max_test_examples: int = Field(default=200, ge=0)
    """held-out examples of a node at most; 0: no limit"""
    server_test_data: str = ""
    """data that the server evaluates the student on, as csv:PATH and the like; empty: none"""

    @field_validator("dataset", "server_test_data")
    @classmethod
    def _is_a_source(cls, value: str, info: ValidationInfo) -> str:
        bundled = info.field_name == "dataset"
        known = bundled if value == BUNDLED else source_of(value) is not None and not value.endswith(":")
        if not (known or (value == "" and not bundled)):
            raise PydanticCustomError("string_pattern_mismatch", "Input should name data")
        return value

    @field_validator("labels")
    @classmethod
    def _are_bounded_names(cls, value: str) -> str:
        found = _listed(value, "data.labels")
        if len(found) > MOST or max(map(len, found), default=0) > LONGEST or not all(map(str.isprintable, found)):
            raise ValueError(f"data.labels should be at most {MOST} names of at most {LONGEST} printable characters")
        return value

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, value: str) -> str:
        try:
            "".encode(value)
        except LookupError:
            raise ValueError(f"data.encoding {value!r} is unknown: set it to utf-8, cp1252 or latin-1, say") from None
        return value

    @property
    def label_names(self) -> tuple[str, ...]:
        """The label names that the user fixed; empty where the data decide."""
        return names(self.labels)


class TrainConfig(Group):
    """Local training."""

    batch_size: int = Field(default=32, ge=1)
    """examples of one forward pass"""
    gradient_accumulation: int = Field(default=1, ge=1)
    """batches of one optimiser step"""
    local_steps: int = Field(default=8, ge=0)
    """optimiser steps of a round; 0: as many as pass once over a node's examples"""
    learning_rate: float = Field(default=0.0005, gt=0)
    """AdamW: of the student's encoder"""
    teacher_learning_rate: float = Field(default=0.0002, gt=0)
    """AdamW: of what a teacher's encoder does not have in common with the student's"""
    head_learning_rate_factor: float = Field(default=10.0, gt=0)
    """learning rate of a head divided by that of its encoder"""
    learning_rate_warm_up: int = Field(default=16, ge=0)
    """first optimiser steps of a node, in which its learning rates grow to these"""
    learning_rate_decay: Literal["staged", "never"] = "staged"
    """staged: rates of private parameters fall over all rounds, of shared ones after 48 local steps | never"""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW: weight decay"""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """norm to which each model's gradient is clipped; 0: never"""
    proximal: float = Field(default=0.0, ge=0)
    """mu of FedProx: shared parameters are held near the start of a round; 0: they are not (fedprox: 0.01)"""
    linear_probe: AutoSwitch = "auto"
    """new heads are fitted to the encoder's outputs before it learns; auto: where there are any | always | never"""
    class_weights: str = Field(default="none", pattern=rf"^(none|balanced|{_POSITIVE}( *, *{_POSITIVE})+)$")
    """of the task loss; none | balanced: rare classes weigh more | a positive number for each of the labels: 1,5"""
    logit_adjustment: AutoSwitch = "auto"
    """shared heads are adjusted to the label frequencies of each node; auto: where they can be | always | never"""


class DistillationConfig(Group):
    """Terms of mutual distillation (FedKD, Eqs 3-7) and their weights."""

    loss: Literal["adaptive", "stable", "paper"] = "adaptive"
    """adaptive: stable, and terms grow, a teacher's as its labels are used up | stable: detached targets, Z | paper"""
    strength: float = Field(default=1.0, ge=0)
    """how much models learn from each other: a factor of all terms; 0: from labels alone"""
    teacher_kl: float = Field(default=1.0, ge=0)
    """KL divergence by which a teacher learns from its student"""
    student_kl: float = Field(default=1.0, ge=0)
    """KL divergence by which a student learns from its teacher"""
    hidden: float = Field(default=0.0, ge=0)
    """separate: distance of hidden states, for both"""
    attention: float = Field(default=0.0, ge=0)
    """separate: distance of attention probabilities, for both"""


class CodecConfig(Group):
    """How updates are encoded, in both directions."""

    kind: str = "auto"
    """auto: the method's | budget: bytes of an update | energy: a share of each matrix | dense | rotated"""
    budget: str = Field(default="384x", pattern=rf"^{_POSITIVE}(x|[kMG]?B(/run)?)$")
    """budget: times smaller than as float32 (384x, 128x), or bytes of an update (100kB), or of a run (5MB/run)"""
    energy_start: float = Field(default=0.95, gt=0, le=1)
    """energy: share of a matrix's energy that an update keeps in the first round"""
    energy_end: float = Field(default=0.98, gt=0, le=1)
    """energy: share of a matrix's energy that an update keeps in the last round"""
    bits: Literal[0, 1, 2, 3, 4, 5, 6, 8, 16, 32] = 0
    """of a number: 3 to 32, rotated 1 to 4; 0: what pays (budget), 4 (rotated), 32 (energy, dense), 8 (fedpaq)"""
    error_feedback: Literal["none", "up", "down", "both"] = "both"
    """directions in which an update also carries what the codec dropped of earlier ones: none | up | down | both"""

    @field_validator("kind")
    @classmethod
    def _is_a_codec(cls, value: str) -> str:
        return one_of(CODECS, value, "auto")


class FederationConfig(Group):
    """Who takes part in a round, and how updates become one."""

    fraction_train: float = Field(default=1.0, gt=0, le=1)
    """share of the nodes that train in a round"""
    min_train_nodes: int = Field(default=2, ge=1)
    """nodes that a round needs, and good replies, which are also half of all that are asked for"""
    aggregation: Literal["examples", "uniform", "median"] = "examples"
    """examples: mean weighted by training examples | uniform: plain mean | median: of each number"""
    max_weight_share: float = Field(default=0.5, gt=0, le=1)
    """share of all examples that one of three nodes or more counts for at most; 1: no limit"""
    max_update_norm: float = Field(default=3.0, ge=0)
    """longer updates are shortened to so many times the round's median; 0: never"""
    evaluate_every: int = Field(default=1, ge=1)
    """rounds between evaluations; the last round is always evaluated"""
    keep_best: str = ""
    """score by which the best evaluated round is exported, such as student.accuracy; empty: the last round"""
    early_stopping: int = Field(default=0, ge=0)
    """evaluations without a better `federation.keep-best` after which a run ends; 0: never"""
    node_wait_seconds: int = Field(default=120, ge=1)
    """how long to wait for `federation.min-train-nodes` to connect"""
    round_timeout_seconds: int = Field(default=3600, ge=1)
    """how long to wait for the replies of a round"""


class ProcessConfig(Group):
    """Where a run computes, and what it leaves on disk, relative to where the SuperLink or SuperNode was started."""

    name: str = Field(default="", pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$")
    """of the run's folder: letters, digits, '.', '_' and '-'; empty: date and time"""
    runs_dir: str = Field(default="runs", min_length=1)
    """server: folder with a folder for each run"""
    state_dir: str = Field(default="state", min_length=1)
    """node: folder with its teacher, student and optimiser between rounds"""
    resume: str = ""
    """folder of a run to continue after its last finished round; empty: a new run"""
    keep_checkpoints: int = Field(default=2, ge=1)
    """server: newest rounds whose states are kept"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto | cpu | cuda"""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto | fp32 | bf16 | fp16"""
    threads: int = Field(default=0, ge=0)
    """CPU threads of a node; 0: its share of a simulation, or all CPUs that it may use"""


def _listed(value: str, key: str) -> tuple[str, ...]:
    try:
        return names(value)
    except ValueError as error:
        raise ValueError(f"{key} {error}") from None
