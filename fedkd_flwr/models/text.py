"""Classifiers of text on pretrained encoders."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from fedkd_flwr.distillation import TOKENS, Head
from fedkd_flwr.errors import ModelError
from fedkd_flwr.models.hub import depth_of, load_tokenizer, read_config, reading, resolve
from fedkd_flwr.models.layers import keep_layers

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

Pooling = Literal["mean", "model", "none", "news"]
"""What is on an encoder, see `build_classifier`."""


def build_classifier(
    reference: str,
    *,
    num_layers: int | None,
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
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    from fedkd_flwr.models.modeling_mean_pooled import MeanPooledClassifier
    from fedkd_flwr.models.modeling_news import NewsRecommender

    config = read_text_config(reference, num_layers)
    if pooling == "model" and config.pad_token_id is None:
        config.pad_token_id = load_tokenizer(reference).pad_token_id
    classifiers = {"model": AutoModelForSequenceClassification, "none": AutoModelForTokenClassification}
    family = classifiers.get(pooling) or encoder_family(config)
    model = from_checkpoint(family, reference, config, labels, attentions, seed, problem_type)
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
    encoder = family is encoder_family(config)
    config.num_labels = len(labels)  # which PVT keeps apart from the names
    config.id2label = dict(enumerate(labels))
    config.label2id = {name: index for index, name in enumerate(labels)}
    config.problem_type = problem_type
    with torch.random.fork_rng(devices=[]), reading(reference):
        torch.manual_seed(seed)
        model, info = family.from_pretrained(
            resolve(reference),
            config=config,
            trust_remote_code=False,
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


def encoder_family(config: "PreTrainedConfig") -> Any:
    """The auto class of `transformers` that makes a bare encoder, or decoder, of a config."""
    from transformers import MODEL_FOR_TEXT_ENCODING_MAPPING, AutoModel, AutoModelForTextEncoding

    return AutoModelForTextEncoding if type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING else AutoModel


def read_text_config(reference: str, num_layers: int | None = None) -> "PreTrainedConfig":
    """The config of a model of text that has as many of its first layers.

    Args:
        reference: see `resolve`.
        num_layers: None: all.

    Raises:
        ModelError: it cannot be read, is an encoder-decoder or no model of text alone, or has other layers.
    """
    config = read_config(reference)
    names = config.architectures or ()
    if config.is_encoder_decoder and not any(name.endswith("EncoderModel") for name in names):
        raise ModelError(
            f"model {reference!r} is an encoder-decoder ({config.model_type}), of which a classifier has no use: "
            f"{_encoder_alone(config)}"
        )
    there = depth_of(reference, config)
    if num_layers is not None and num_layers > there:
        raise ModelError(f"model {reference!r} has {there} layers, not {num_layers}")
    if getattr(config, "use_cache", False):
        config.use_cache = False  # of what a decoder has read, to write on; nobody writes here
    if num_layers not in (None, there):
        with reading(reference, f"be cut to {num_layers} of its {there} layers"):
            keep_layers(config, num_layers)
    return config


def _encoder_alone(config: "PreTrainedConfig") -> str:
    from transformers import MODEL_FOR_TEXT_ENCODING_MAPPING

    if type(config) not in MODEL_FOR_TEXT_ENCODING_MAPPING:
        return "choose an encoder"
    name = MODEL_FOR_TEXT_ENCODING_MAPPING[type(config)].__name__
    return f"save its encoder alone, as {name}.from_pretrained(...).save_pretrained(FOLDER) does, and give that folder"


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
