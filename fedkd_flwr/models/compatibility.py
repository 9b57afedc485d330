"""Whether the models of a run, or of a node, exist and fit together, before any weights are read."""

from typing import TYPE_CHECKING

import torch

from fedkd_flwr.config.node_config import config_at_node
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.distillation import batch_norms, require_layers
from fedkd_flwr.errors import ConfigError, ModelError
from fedkd_flwr.models.hub import cause, load_tokenizer, read_config, reading
from fedkd_flwr.models.image import has_layers, load_image_processor
from fedkd_flwr.models.positions import limit
from fedkd_flwr.models.text import encoder_family, read_text_config
from fedkd_flwr.tasks.image_classification import ImageClassification
from fedkd_flwr.tasks.text import read_alike

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def check_models(config: RunConfig) -> None:
    """Whether the models of a run, or of a node, fit together; reads configs, tokenizers and image processors.

    Raises:
        ConfigError: `model.student-layers` or `model.shared-layers` is more than a checkpoint has, or it has none to
            take or match.
        ModelError: a checkpoint cannot be read, its tokenizer is another model's, or attention is to be matched
            between models that read different tokens; it does not take the images of the teacher's processor, or has
            batch normalisation that `model.batch-norm` refuses.
    """
    for turn in range(len(config.model.teacher_names)):
        check_models(config_at_node(config, {"partition-id": turn}))
    if config.task_spec.inputs == "images":
        _check_image_models(config)
    else:
        _check_text_models(config)


def _check_text_models(config: RunConfig) -> None:
    student = config.student_checkpoint
    for reference in dict.fromkeys((student, config.model.teacher)):
        _check_depth(config, reference, read_text_config(reference).num_hidden_layers)
        _check_length(config, reference)
    if not config.parts.whole:
        read_text_config(student, config.model.student_layers)
    if config.model.architecture == "nested" and config.parts.trains == {"teacher", "student"}:
        _check_layers(config)
    tokenizers = {reference: load_tokenizer(reference) for reference in (student, config.model.teacher)}
    for reference, tokenizer in tokenizers.items():
        if len(tokenizer) > (tokens := getattr(read_config(reference), "vocab_size", len(tokenizer))):
            raise ModelError(
                f"model {reference!r}: its tokenizer has {len(tokenizer)} tokens, the model only {tokens}: "
                "it is the tokenizer of another model"
            )
    if read_alike(tokenizers[student], tokenizers[config.model.teacher]):
        return
    other = f"teacher {config.model.teacher!r} reads other tokens than student {student!r}"
    if config.task_spec.inputs == "news":
        raise ModelError(f"{other}, but news are encoded once for both: choose checkpoints of one tokenizer")
    if config.distillation.attention:
        raise ModelError(
            f"{other}, attention cannot be matched: set distillation.attention to 0.0, or choose checkpoints of "
            "one tokenizer"
        )


def _check_length(config: RunConfig, reference: str) -> None:
    """Whether a model has positions for as many tokens as it will be given."""
    if (most := limit(reference, config.model.max_length)) is not None:
        raise ConfigError(
            f"run-config key 'model.max-length' is {config.model.max_length} but {reference!r} has positions for "
            f"{most} tokens: "
            f"set it to 2 ... {most}"
        )


def _check_layers(config: RunConfig) -> None:
    """Whether the student can be the teacher's first layers, of which no weights are made."""
    teacher, student = (
        read_text_config(config.model.teacher, layers) for layers in (None, config.model.student_layers)
    )
    with reading(config.model.teacher, "be built"), torch.device("meta"):
        encoders = [encoder_family(found).from_config(found) for found in (teacher, student)]
    try:
        require_layers(*encoders)
    except ValueError as error:
        raise ModelError(f"teacher {config.model.teacher!r}: {error}: set model.architecture to 'separate'") from None


def _check_image_models(config: RunConfig) -> None:
    student = config.student_checkpoint
    shape = ImageClassification(load_image_processor(config.model.teacher), ()).shape
    for reference in dict.fromkeys((config.model.teacher, student)):
        _check_takes(reference, shape, config.model.batch_norm)
    if config.parts.whole or "student" not in config.parts.trains:
        return
    for reference in (student, config.model.teacher):
        found = read_config(reference)
        if has_layers(found):
            _check_depth(config, reference, found.num_hidden_layers)
        elif not config.model.student:
            raise ConfigError(
                f"teacher {reference!r} {_unlike_a_row(found)}, its first layers are no student: set run-config key "
                "'model.student' to another checkpoint and model.architecture to 'separate'"
            )
        elif len(config.parts.trains) == 2 and (config.distillation.hidden or config.distillation.attention):
            raise ConfigError(
                f"model {reference!r} {_unlike_a_row(found)}, it has no layers to match: set distillation.hidden and "
                "distillation.attention to 0.0"
            )


def _unlike_a_row(config: "PreTrainedConfig") -> str:
    stages = hasattr(config, "depths") or hasattr(config, "hidden_sizes")
    return "is built of stages" if stages else "has no num_hidden_layers in its config"


def _check_depth(config: RunConfig, reference: str, depth: int) -> None:
    """Whether a checkpoint of this depth has the layers that a run takes of it."""
    if config.model.student_layers > depth:
        raise ConfigError(
            f"run-config key 'model.student-layers' is {config.model.student_layers} but {reference!r} has {depth} "
            f"layers: set it to 1 ... {depth}"
        )
    if reference == config.model.teacher and config.model.shared_layers > depth:
        raise ConfigError(
            f"run-config key 'model.shared-layers' is {config.model.shared_layers} but teacher "
            f"{config.model.teacher!r} has {depth} "
            f"layers: set it to 0 ... {depth}"
        )


def _check_takes(reference: str, shape: tuple[int, int, int], batch_norm: str) -> None:
    """Build the model without memory for weights, and give it an image of this shape."""
    from transformers import AutoModelForImageClassification

    config = read_config(reference)
    with reading(reference), torch.device("meta"):
        model = AutoModelForImageClassification.from_config(config).eval()
    if batch_norm == "refuse" and batch_norms(model):
        raise ModelError(
            f"model {reference!r} has batch normalisation, whose running statistics do not travel: set run-config key "
            "'model.batch-norm' to 'local', so that each node keeps its own, or choose a family with layer or group "
            "normalisation, such as ViT, ConvNeXt or BiT"
        )
    try:
        model(pixel_values=torch.empty(1, *shape, device="meta"))
    except Exception as error:  # whatever a family of models raises
        raise ModelError(
            f"model {reference!r} does not take images of {' x '.join(map(str, shape))} (channels, height, width), "
            f"as the teacher's image processor makes them: {cause(error)}"
        ) from None
