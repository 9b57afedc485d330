"""Tiny random encoders of many families of text, as `transformers` has them."""

from typing import Any

import torch
from checkpoints import WORDS
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, PreTrainedModel

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


def tiny_text_model(family: str, **changes: Any) -> PreTrainedModel:
    """A random model of this family with the vocabulary of `checkpoints.WORDS`; "t5 encoder": without the decoder."""
    name, _, alone = family.partition(" ")
    settings = {"vocab_size": len(WORDS), "pad_token_id": 0} | TEXT[name] | changes
    kind = AutoModelForTextEncoding if alone else AutoModel
    torch.manual_seed(2)
    model: PreTrainedModel = kind.from_config(AutoConfig.for_model(name, **settings))
    return model
