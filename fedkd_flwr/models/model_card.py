"""The README.md of an exported model: what it is, what it learnt from, how good it is, how to load it.

Paths of this machine stay out: of a data file or a folder with a model there is its name.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fedkd_flwr.config.groups import Value
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.messages import Scores
from fedkd_flwr.models.hub import resolve

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

_FOLDERS = {"run.runs-dir", "run.name", "run.state-dir", "run.resume"}
"""Keys that say where things lie, not what a model is."""

_PATHS = {"model.teacher", "model.teachers", "model.student", "data.dataset", "data.server-test-data"}

_MODELS = {
    "student": "The student that all nodes of a federation share",
    "encoder": "The encoder of the student that all nodes of a federation share; each node keeps a head of its own",
    "student without statistics": "The student that all nodes of a federation share, but for its batch normalisation, "
    "which is the checkpoint's: nobody has scored the model with it, let it see images before you use it "
    "(docs/models.md)",
    "teacher": "The teacher",
}


@dataclass(frozen=True)
class About:
    """What an exported folder says of its model beside the weights.

    Attributes:
        config: of the run, or of the node that exports.
        model: which one it is.
        round: the last whose training is in it.
        titles: of the data that it has learnt from, for people.
        scores: of whom, in words -> metric -> value.
        label_shares: of examples that have each label, for which the logits hold; empty: not known.
    """

    config: RunConfig
    model: Literal["student", "encoder", "student without statistics", "teacher"]
    round: int
    titles: tuple[str, ...] = ()
    scores: Mapping[str, Scores] = field(default_factory=dict)
    label_shares: tuple[float, ...] = ()


def model_card(about: About, labels: tuple[str, ...], remote_code: bool) -> "ModelCard":
    """The card of a model.

    Args:
        about: what is known of it.
        labels: what its outputs stand for.
        remote_code: whether its folder carries code of ours.
    """
    from huggingface_hub import ModelCard, ModelCardData

    config = about.config
    reference = config.model.teacher if about.model == "teacher" else config.student_checkpoint
    data = ModelCardData(
        license=licence_of(reference),
        library_name="transformers",
        pipeline_tag=config.task_spec.pipeline if about.model != "encoder" else None,
        tags=["federated-learning", "knowledge-distillation", "flower", "fedkd-flwr"],
    )
    text = "\n".join(_lines(about, labels, remote_code, shown_name(reference)))
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n", ignore_metadata_errors=True)


def licence_of(reference: str) -> str | None:
    """The licence that the model card of a checkpoint names; None where it has no card here, or names none."""
    from huggingface_hub import ModelCard, try_to_load_from_cache

    folder = Path(resolve(reference))
    found = folder / "README.md" if folder.is_dir() else try_to_load_from_cache(reference, "README.md")
    try:
        licence: str | None = ModelCard.load(Path(str(found)), ignore_metadata_errors=True).data.license
    except (OSError, ValueError):
        return None
    return licence


def _lines(about: About, labels: tuple[str, ...], remote_code: bool, base: str) -> Iterator[str]:
    config = about.config
    yield f"# {config.task}, federated: {about.model} of {base}\n"
    yield f"{_MODELS[about.model]}, trained with fedkd-flwr. Method: {config.parts.title}.\n"
    yield f"* Task: {config.task}"
    yield f"* Rounds: {about.round}"
    yield f"* Data: {', '.join(dict.fromkeys(map(shown_name, about.titles))) or 'not recorded'}"
    if labels and about.model != "encoder":
        yield f"* Outputs: {', '.join(labels)}"
    yield from _scores(about.scores)
    if about.label_shares:
        yield from _label_shares(about.label_shares, labels, config, remote_code)
    yield from _loading(about, remote_code)
    yield "\n## Intended use and limits\n"
    yield (
        "It is meant for data like those of the nodes that trained it. Scores are of examples that they held out, "
        "weighted by their number; a node's own score may be far from the mean. It was not examined for bias. It may "
        "have kept traces of its training data: what a model gives away of them was not measured. No text and no image "
        "is in this folder; names of labels and titles of data are."
    )
    yield "\n## Run config\n"
    defaults = RunConfig.parse({}).as_run_config()
    yield "Keys that differ from the defaults:\n"
    yield "| key | value |\n|---|---|"
    for key, value in config.as_run_config().items():
        if key not in _FOLDERS and defaults[key] != value:
            yield f"| `{key}` | `{_shown(key, value)}` |"


def _scores(scores: Mapping[str, Scores]) -> Iterator[str]:
    scores = {who: found for who, found in scores.items() if found}
    if not scores:
        return
    metrics = list(dict.fromkeys(name for found in scores.values() for name in found))
    yield "\n## Scores\n"
    yield f"| | {' | '.join(metrics)} |"
    yield f"|---|{'---|' * len(metrics)}"
    for who, found in scores.items():
        yield f"| {who} | {' | '.join(f'{found[name]:.3f}' if name in found else '' for name in metrics)} |"


def _label_shares(
    shares: tuple[float, ...], labels: tuple[str, ...], config: RunConfig, remote_code: bool
) -> Iterator[str]:
    yield "\n## Label shares\n"
    yield "The logits hold where labels are as frequent as here:\n"
    yield "| label | share of examples |\n|---|---|"
    for label, share in zip(labels, shares, strict=True):
        yield f"| {label} | {share:.4f} |"
    if config.train.class_weights != "none":
        yield "\nBeside that, each class counts as the run's `train.class-weights` make it count."
    yield "\nWhere they are not, say how frequent they are, in the order of the table:\n"
    if remote_code:
        given = ", ".join(f"{1 / len(shares):.2f}" for _ in shares)
        yield "```python"
        yield (
            "AutoModelForSequenceClassification.from_pretrained(\n"
            f'    "FOLDER", trust_remote_code=True, label_shares=[{given}]\n)'
        )
        yield "```"
    else:
        link = "torch.logit" if config.task_spec.labels == "several" else "torch.log"
        yield "```python"
        yield "shipped = torch.tensor(model.config.head_label_shares)"
        yield f"logits = model(**inputs).logits + {link}(your_shares) - {link}(shipped)"
        yield "```"


def _loading(about: About, remote_code: bool) -> Iterator[str]:
    spec = about.config.task_spec
    auto = "AutoModel" if about.model == "encoder" else spec.auto_class
    processor = "AutoImageProcessor" if spec.inputs == "images" else "AutoTokenizer"
    code = ", trust_remote_code=True" if remote_code else ""
    yield "\n## How to load it\n"
    yield "```python"
    yield f"from transformers import {', '.join(sorted([auto, processor]))}\n"
    yield f'model = {auto}.from_pretrained("FOLDER"{code})'
    yield f'processor = {processor}.from_pretrained("FOLDER")'
    yield "```"
    if remote_code:
        yield "\nThe folder carries the code of its head; without `trust_remote_code=True` there is the encoder alone."
    if spec.inputs != "images":
        yield f"\nTexts were cut at {about.config.model.max_length} tokens."


def _shown(key: str, value: Value) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if key in _PATHS:
        text = ",".join(map(shown_name, text.split(",")))
    return text.replace("|", "\\|")


def shown_name(reference: str) -> str:
    """A model or data source by its last name where it is called by a path."""
    kind, colon, path = reference.strip().rpartition(":")
    local = path.startswith(("/", "~", "."))
    return f"{kind}{colon}{Path(path).name}" if local else reference.strip()
