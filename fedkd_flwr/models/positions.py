"""How many tokens a model of text reads at once: measured, since configs count them in ways of their own."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch

from fedkd_flwr.distillation import layer_lists
from fedkd_flwr.errors import ModelError
from fedkd_flwr.models.hub import quiet, reading
from fedkd_flwr.models.text import encoder_family, read_text_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def limit(reference: str, wanted: int) -> int | None:
    """The most tokens that a model has positions for; None: it has them for as many as are wanted.

    Tables of positions are tried out, on a model whose other memory is never touched. Rotary positions have no table:
    for them it is as many as the config says that the model was made for.

    Args:
        reference: see `pretrained.resolve`.
        wanted: tokens.

    Raises:
        ModelError: its config cannot be read, or it cannot be built.
    """
    model = _empty(reference)
    with quiet():
        return _limit(model, wanted)


def _limit(model: "PreTrainedModel", wanted: int) -> int | None:
    if _reads(model, wanted):
        made_for = getattr(model.config, "max_position_embeddings", None)
        rotary = getattr(model.config, "rope_parameters", None)
        return int(made_for) if rotary and made_for and made_for < wanted else None
    if not _reads(model, 2):
        return None
    reads, fails = 2, wanted
    while fails - reads > 1:
        middle = (reads + fails) // 2
        reads, fails = (middle, fails) if _reads(model, middle) else (reads, middle)
    return reads


class _ReachedTheLayersError(Exception):
    pass


def _reached(*_: Any) -> None:
    raise _ReachedTheLayersError


def _empty(reference: str) -> "PreTrainedModel":
    """A model of one layer whose weights have no values, and which stops there."""
    from transformers.initialization import no_init_weights

    config = read_text_config(reference)
    with suppress(ModelError):  # of a family whose depth cannot be set
        config = read_text_config(reference, 1)
    with reading(reference, "be built"), no_init_weights():
        model: PreTrainedModel = encoder_family(config).from_config(config).eval()
    for layers in layer_lists(model)[:1]:
        layers[0].register_forward_pre_hook(_reached)
    return model


@torch.no_grad()
def _reads(model: "PreTrainedModel", tokens: int) -> bool:
    other_than_padding = 1 if model.config.pad_token_id == 0 else 0
    ids = torch.full((1, tokens), other_than_padding)
    try:
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    except _ReachedTheLayersError:
        return True
    except Exception:  # whatever a family of models raises where its positions end
        return False
    return True
