"""Tiny random models of many families of text and of images, as `transformers` has them."""

from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForTextEncoding,
    PreTrainedModel,
)

from support.checkpoints import WORDS

POSITIONS = 80
_NAMED = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": POSITIONS,
}
_DECODER = _NAMED | {"num_key_value_heads": 1, "head_dim": 8, "bos_token_id": 2, "eos_token_id": 3}
_NO_PADDING: dict[str, Any] = {"pad_token_id": None}
_T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 4, "num_heads": 2}
_BART = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2,
    "forced_eos_token_id": 3,
}  # fmt: skip
_ROBERTA = _NAMED | {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3}
_XLM = {"emb_dim": 16, "n_layers": 4, "n_heads": 2, "max_position_embeddings": POSITIONS, "pad_index": 0}

TEXT: dict[str, dict[str, Any]] = {
    "albert": _NAMED | {"embedding_size": 8},
    "bart": _BART,
    "bert": _NAMED,
    "bert-generation": _NAMED,
    "big_bird": _NAMED,
    "biogpt": _NAMED,
    "bloom": {"hidden_size": 16, "n_layer": 4, "n_head": 2},
    "camembert": _ROBERTA,
    "convbert": _NAMED | {"embedding_size": 16, "conv_kernel_size": 3, "head_ratio": 1},
    "data2vec-text": _ROBERTA,
    "deberta": _NAMED | {"pooler_hidden_size": 16, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": _NAMED | {
        "pooler_hidden_size": 16, "relative_attention": True, "pos_att_type": ["c2p", "p2c"],
        "position_biased_input": False, "share_att_key": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm",
    },
    "distilbert": {"dim": 16, "n_layers": 4, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": POSITIONS},
    "electra": _NAMED | {"embedding_size": 8},
    "ernie": _NAMED,
    "eurobert": _NAMED | {"num_key_value_heads": 1, "head_dim": 8},
    "falcon": {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2},
    "flaubert": _XLM,
    "fnet": {k: v for k, v in _NAMED.items() if k != "num_attention_heads"},
    "funnel": {
        "d_model": 16, "block_sizes": [2, 2], "architectures": ["FunnelModel"], "n_head": 2, "d_head": 8, "d_inner": 32,
    },
    "gemma": _DECODER,
    "gemma2": _DECODER,
    "gemma3_text": _DECODER | {"sliding_window": 8},
    "gpt2": {"n_embd": 16, "n_layer": 4, "n_head": 2, "n_positions": POSITIONS, "bos_token_id": 3, "eos_token_id": 3},
    "gpt_neo": {
        "hidden_size": 16, "num_layers": 4, "num_heads": 2, "intermediate_size": 32,
        "attention_types": [[["global", "local"], 2]], "max_position_embeddings": POSITIONS, "window_size": 8,
        "bos_token_id": 3, "eos_token_id": 3,
    },
    "gpt_neox": _NAMED,
    "gptj": {"n_embd": 16, "n_layer": 4, "n_head": 2, "n_positions": POSITIONS, "rotary_dim": 4,
             "bos_token_id": 3, "eos_token_id": 3},
    "ibert": _ROBERTA,
    "layoutlm": _NAMED,
    "llama": _DECODER | _NO_PADDING,
    "longformer": _ROBERTA | {"attention_window": [4, 4, 8, 8]},
    "luke": _ROBERTA | {"entity_vocab_size": 4, "entity_emb_size": 8},
    "mbart": _BART,
    "megatron-bert": _NAMED,
    "mistral": _DECODER | _NO_PADDING,
    "mobilebert": _NAMED | {
        "embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16, "num_feedforward_networks": 2,
    },
    "modernbert": _NAMED | {
        "local_attention": 8, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3,
    },
    "mpnet": _ROBERTA,
    "nomic_bert": _NAMED | {"head_dim": 8},
    "olmo": _DECODER | {"pad_token_id": 1},
    "openai-gpt": {"n_embd": 16, "n_layer": 4, "n_head": 2, "n_positions": POSITIONS},
    "opt": {
        "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "ffn_dim": 32, "word_embed_proj_dim": 16,
        "max_position_embeddings": POSITIONS, "bos_token_id": 2, "eos_token_id": 3,
    },
    "phi": _NAMED | {"partial_rotary_factor": 0.5},
    "qwen2": _DECODER | {"vocab_size": len(WORDS) + 1},
    "qwen3": _DECODER,
    "rembert": _NAMED | {"input_embedding_size": 8, "output_embedding_size": 8},
    "roberta": _ROBERTA,
    "roberta-prelayernorm": _ROBERTA,
    "roformer": _NAMED | {"embedding_size": 16},
    "splinter": _NAMED,
    "squeezebert": _NAMED | {
        "embedding_size": 16,
        **{f"{part}_groups": 2 for part in ("q", "k", "v", "post_attention", "intermediate", "output")},
    },
    "t5": _T5,
    "mt5": _T5,
    "xlm": _XLM,
    "xlm-roberta": _ROBERTA,
    "xlm-roberta-xl": _ROBERTA,
    "xlnet": {"d_model": 16, "n_layer": 4, "n_head": 2, "d_inner": 32},
    "yoso": _NAMED,
}  # fmt: skip

_ROW = {
    "image_size": 16, "patch_size": 4, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2,
    "intermediate_size": 32,
}  # fmt: skip
_SWIN = {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 2}
_CONVNEXT = {"image_size": 16, "patch_size": 2, "num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 1]}
_RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}

IMAGES: dict[str, dict[str, Any]] = {
    "beit": _ROW,
    "bit": _RESNET | {"hidden_sizes": [32, 64], "num_groups": 4, "layer_type": "preactivation"},
    "convnext": _CONVNEXT,
    "convnextv2": _CONVNEXT,
    "data2vec-vision": _ROW,
    "deit": _ROW | {"architectures": ["DeiTForImageClassification"]},
    "dinov2": _ROW,
    "dinov2_with_registers": _ROW,
    "efficientnet": {"image_size": 16},
    "focalnet": {"image_size": 16, "patch_size": 2, "embed_dim": 8, "hidden_sizes": [8, 16], "depths": [1, 1],
                 "focal_levels": [1, 1], "focal_windows": [3, 3]},
    "hiera": {"image_size": [16, 16], "patch_size": [3, 3], "patch_stride": [2, 2], "patch_padding": [1, 1],
              "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "query_stride": [2, 2],
              "masked_unit_size": [4, 4], "masked_unit_attention": [True, False], "num_query_pool": 1},
    "ijepa": _ROW,
    "levit": {
        "architectures": ["LevitForImageClassification"], "image_size": 16, "hidden_sizes": [16, 16],
        "num_attention_heads": [2, 2], "depths": [1, 1], "key_dim": [8, 8], "mlp_ratio": [2, 2],
        "attention_ratio": [2, 2],
    },
    "mobilenet_v2": {"image_size": 32, "depth_multiplier": 0.25},
    "mobilevit": {"image_size": 32, "hidden_sizes": [16, 16, 16], "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 16],
                  "num_attention_heads": 2},
    "poolformer": {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1], "num_encoder_blocks": 4},
    "pvt": {
        "image_size": 32, "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 1, 1],
    },
    "regnet": _RESNET | {"groups_width": 8},
    "resnet": _RESNET,
    "siglip": {"vision_config": _ROW, "text_config": {"hidden_size": 16, "num_hidden_layers": 1,
               "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 20}},
    "swin": _SWIN,
    "swinv2": _SWIN,
    "vit": _ROW,
    "vit_msn": _ROW,
}  # fmt: skip
"""Those of `mobilenet_v2`, `mobilevit` and `pvt` are of 32 x 32 pixels."""


OFTEN = (
    "bert", "roberta", "xlm-roberta", "distilbert", "electra", "deberta", "deberta-v2", "albert", "mpnet",
    "camembert", "modernbert", "nomic_bert", "longformer", "big_bird", "fnet", "funnel", "squeezebert",
    "mobilebert", "ernie", "roformer", "convbert", "xlnet", "flaubert", "gpt2", "llama", "qwen3", "gemma3_text",
    "mistral", "opt", "t5", "bart", "luke", "data2vec-text", "megatron-bert", "rembert", "t5 encoder", "vit",
    "deit", "beit", "dinov2", "swin", "convnext", "resnet", "poolformer", "mobilevit", "siglip", "focalnet",
    "hiera", "pvt", "bit",
)  # fmt: skip
"""What every run of the tests tries; the others are slow only in that they are many."""


def tiny_text_model(family: str, **changes: Any) -> PreTrainedModel:
    """A random model of this family, its norms too, with the vocabulary of `checkpoints.WORDS`.

    "t5 encoder" is T5 without its decoder.
    """
    name, _, alone = family.partition(" ")
    settings = {"vocab_size": len(WORDS), "pad_token_id": 0} | TEXT[name] | changes
    kind = AutoModelForTextEncoding if alone else AutoModel
    torch.manual_seed(2)
    return _random(kind.from_config(AutoConfig.for_model(name, **settings)))


def tiny_image_model(family: str) -> PreTrainedModel:
    """A random image classifier of this family, its norms too, of 16 x 16 pixels."""
    torch.manual_seed(2)
    return _random(AutoModelForImageClassification.from_config(AutoConfig.for_model(family, **IMAGES[family])))


@torch.no_grad()
def _random(model: PreTrainedModel) -> PreTrainedModel:
    for parameter in model.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    return model
