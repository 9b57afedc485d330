from pathlib import Path

import pytest
import torch
from support.checkpoints import BERT, FAMILIES, about, batch, build, save
from transformers import AutoModel, AutoModelForMaskedLM, BertConfig, BertForMaskedLM, OPTConfig, OPTModel

from fedkd_flwr.distillation import trainable
from fedkd_flwr.errors import ModelError
from fedkd_flwr.models.export import export, load_classifier
from fedkd_flwr.models.hub import load_tokenizer
from fedkd_flwr.models.text import head_parameter_names


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_layers_are_the_checkpoints(family: str, checkpoints: dict[str, str]) -> None:
    model = build(checkpoints[family]).eval()
    whole = AutoModel.from_pretrained(checkpoints[family]).eval()
    inputs = batch(checkpoints[family])
    mine = model(**inputs, output_hidden_states=True).hidden_states
    theirs = whole(**inputs, output_hidden_states=True).hidden_states
    assert (len(mine), len(theirs)) == (3, 4)
    for a, b in zip(mine, theirs[:3], strict=True):
        torch.testing.assert_close(a, b)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_head_on_the_mean_of_the_tokens(family: str, checkpoints: dict[str, str]) -> None:
    model, inputs = build(checkpoints[family]).eval(), batch(checkpoints[family])
    output = model(**inputs, output_hidden_states=True)
    for row, mask in enumerate(inputs["attention_mask"]):
        mean = output.hidden_states[-1][row, : mask.sum()].mean(dim=0)
        torch.testing.assert_close(output.logits[row], model.head(mean))
        alone = model(input_ids=inputs["input_ids"][row : row + 1, : mask.sum()])
        torch.testing.assert_close(alone.logits[0], output.logits[row])


def test_attention_probabilities_come_where_they_are_asked_for(checkpoints: dict[str, str]) -> None:
    inputs = batch(checkpoints["bert"])
    model = build(checkpoints["bert"], attentions=True)
    assert model.config is model.base_model.config
    attentions = model(**inputs, output_attentions=True).attentions
    assert [tuple(a.shape) for a in attentions] == [(2, 2, 9, 9)] * 2
    plain = build(checkpoints["bert"]).eval()(**inputs)
    torch.testing.assert_close(plain.logits, build(checkpoints["bert"], attentions=True).eval()(**inputs).logits)


@pytest.mark.parametrize("pooling", ["mean", "model"])
def test_the_seed_alone_decides_the_new_weights(pooling: str, checkpoints: dict[str, str]) -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first = build(checkpoints["bert"], pooling=pooling).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(8)
    again = build(checkpoints["bert"], pooling=pooling).state_dict()
    other = build(checkpoints["bert"], pooling=pooling, seed=1).state_dict()
    different = {name for name in first if not torch.equal(first[name], other[name])}
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert different == ({"head.weight"} if pooling == "mean" else {"classifier.weight"})


@pytest.mark.parametrize("pooling", ["mean", "model"])
@pytest.mark.parametrize("family", FAMILIES)
def test_all_and_only_what_logits_depend_on_learns_except_embeddings(
    family: str, pooling: str, checkpoints: dict[str, str]
) -> None:
    model = build(checkpoints[family], pooling=pooling)
    frozen = {name for name, _ in model.named_parameters()} - trainable(model).keys()
    allowed = ("embeddings", "pooler") if pooling == "mean" else ("embeddings",)
    assert all(name.split(".")[1] in allowed for name in frozen)
    assert any(name.endswith("embeddings.LayerNorm.weight") for name in frozen)
    model(**batch(checkpoints[family])).logits.pow(2).sum().backward()
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == set(trainable(model))


def test_embeddings_beside_the_layers_are_found(tmp_path: Path) -> None:
    config = OPTConfig(vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, ffn_dim=32)
    OPTModel(config).save_pretrained(tmp_path)
    model = build(str(tmp_path))
    frozen = {name for name, _ in model.named_parameters()} - trainable(model).keys()
    assert frozen == {"model.decoder.embed_tokens.weight", "model.decoder.embed_positions.weight"}


@pytest.mark.parametrize(
    ("pooling", "family", "names"),
    [
        ("mean", "bert", {"head.weight", "head.bias"}),
        ("model", "bert", {"classifier.weight", "classifier.bias"}),
        ("model", "distilbert", {f"{p}classifier.{x}" for p in ("", "pre_") for x in ("weight", "bias")}),
    ],
)
def test_the_head_is_what_lies_outside_the_encoder(
    pooling: str, family: str, names: set[str], checkpoints: dict[str, str]
) -> None:
    assert head_parameter_names(build(checkpoints[family], pooling=pooling)) == names


def test_a_checkpoint_with_another_head_gives_its_encoder_only(checkpoints: dict[str, str], tmp_path: Path) -> None:
    torch.manual_seed(2)
    masked = BertForMaskedLM(BertConfig(**BERT))
    save(masked, tmp_path)
    inputs = batch(str(tmp_path))
    expected = AutoModelForMaskedLM.from_pretrained(tmp_path).bert(**inputs).last_hidden_state
    output = build(str(tmp_path), num_layers=None).eval()(**inputs, output_hidden_states=True)
    torch.testing.assert_close(output.hidden_states[-1], expected)
    two = build(checkpoints["bert"], labels=("no", "yes"), pooling="model")
    export(two, load_tokenizer(checkpoints["bert"]), tmp_path / "two", about())
    assert build(str(tmp_path / "two"), pooling="model")(**inputs).logits.shape == (2, 3)


def test_damaged_and_incomplete_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = Path(save(FAMILIES["bert"](), tmp_path)) / "model.safetensors"
    some = {name: tensor for name, tensor in load_file(weights).items() if "layer.1.output" not in name}
    save_file(some, weights, {"format": "pt"})
    for pooling in ("mean", "model", "none", "news"):
        with pytest.raises(ModelError, match=r"lacks 4 weights of its encoder, such as .*layer.1.output"):
            build(str(tmp_path), pooling=pooling)
    with pytest.raises(ModelError, match="has 3 layers, not 4"):
        build(str(tmp_path), num_layers=4)
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be read"):
        build(str(tmp_path))
    with pytest.raises(ModelError, match="cannot be read"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("pooling", ["mean", "model", "none"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_was_cut_is_exported_and_read_again(
    family: str, pooling: str, checkpoints: dict[str, str], tmp_path: Path
) -> None:
    """Running the whole model and leaving its last layer out is running the first ones."""
    model = build(checkpoints[family], num_layers=2, pooling=pooling).eval()
    whole = AutoModel.from_pretrained(checkpoints[family]).eval()
    lists = (module for module in whole.modules() if isinstance(module, torch.nn.ModuleList))
    skipped = next(layers for layers in lists if len(layers) == 3)[2]
    skipped.forward = lambda hidden, *_, **__: hidden
    inputs = batch(checkpoints[family])
    mine = model(**inputs, output_hidden_states=True).hidden_states
    assert len(mine) == 3 == model.config.num_hidden_layers + 1
    torch.testing.assert_close(mine[-1], whole(**inputs).last_hidden_state)
    export(model, load_tokenizer(checkpoints[family]), tmp_path, about())
    assert torch.equal(load_classifier(tmp_path)(**inputs).logits, model(**inputs).logits)
