import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    BertTokenizer,
    DistilBertConfig,
    DistilBertModel,
    OPTConfig,
    OPTModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
)

from fedkd_flwr.config import RunConfig
from fedkd_flwr.distillation import trainable
from fedkd_flwr.errors import ConfigError, ModelError
from fedkd_flwr.exports import export, load_classifier
from fedkd_flwr.model_checks import check_models
from fedkd_flwr.models import (
    build_classifier,
    depth,
    head_parameter_names,
    load_tokenizer,
    resolve,
)

LABELS = ("ham", "spam", "eggs")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghi"]
TEXTS = ["a b c d e f g", "h"]

_SHARED: dict[str, Any] = {"vocab_size": len(WORDS), "max_position_embeddings": 40}
_BERT = _SHARED | {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": lambda: BertModel(BertConfig(**_BERT)),
    "roberta": lambda: RobertaModel(RobertaConfig(**_BERT, pad_token_id=0)),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(**_SHARED, dim=16, n_layers=3, n_heads=2, hidden_dim=32, dropout=0.2)
    ),
}


def save(model: PreTrainedModel, folder: Path, words: list[str] = WORDS) -> str:
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer.from_pretrained(folder).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    torch.manual_seed(1)
    return {name: save(build(), tmp_path_factory.mktemp(name)) for name, build in FAMILIES.items()}


def build(reference: str, **changes: Any) -> PreTrainedModel:
    arguments = {"num_layers": 2, "labels": LABELS, "pooling": "mean", "attentions": False, "seed": 0}
    return build_classifier(reference, **(arguments | changes))


def batch(reference: str) -> dict[str, torch.Tensor]:
    encoded = load_tokenizer(reference)(TEXTS, padding=True, return_tensors="pt")
    return {name: encoded[name] for name in ("input_ids", "attention_mask")}


@pytest.fixture
def check(defaults: dict[str, Any]) -> Callable[..., None]:
    """check_models on the default run, of two models, with some keys changed."""
    apart = defaults | {"architecture": "separate"}
    return lambda **changes: check_models(
        RunConfig.parse(apart | {key.replace("_", "-"): value for key, value in changes.items()})
    )


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


_READERS = """
import sys, torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, pipeline
assert "fedkd_flwr" not in sys.modules
texts = sys.argv[2:]
results = []
for folder in sys.argv[1].split(","):
    inputs = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
    classify = pipeline("text-classification", model=folder, trust_remote_code=True, top_k=None)
    results.append({
        "encoder": AutoModel.from_pretrained(folder)(**inputs).last_hidden_state.tolist(),
        "classifier": model(**inputs).logits.tolist(),
        "pipeline": [{r["label"]: r["score"] for r in scores} for scores in classify(texts)],
    })
import json; print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def exported(checkpoints: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Models with their folders, and what a process that knows only transformers reads from these."""
    models, folders = {}, {}
    for family, checkpoint in checkpoints.items():
        models[family], folders[family] = build(checkpoint).eval(), str(tmp_path_factory.mktemp(f"exported-{family}"))
        with torch.no_grad():
            for parameter in trainable(models[family]).values():
                parameter.add_(0.1 * torch.randn_like(parameter))
        export(models[family], load_tokenizer(checkpoint), folders[family])
    cache = tmp_path_factory.mktemp("cache")
    environment = {**os.environ, "HF_MODULES_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _READERS, ",".join(folders.values()), *TEXTS]
    done = subprocess.run(command, cwd=cache, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    read = dict(zip(folders, json.loads(done.stdout.splitlines()[-1]), strict=True))
    return {family: (models[family], folders[family], read[family]) for family in folders}


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_folder_gives_the_same_numbers_everywhere(
    family: str, exported: dict[str, Any], checkpoints: dict[str, str]
) -> None:
    model, folder, read = exported[family]
    output = model(**batch(checkpoints[family]), output_hidden_states=True)
    assert torch.equal(torch.tensor(read["encoder"]), output.hidden_states[-1])
    assert torch.equal(torch.tensor(read["classifier"]), output.logits)
    for scores, logits in zip(read["pipeline"], output.logits, strict=True):
        torch.testing.assert_close(torch.tensor([scores[label] for label in LABELS]), logits.softmax(-1))
    again = load_classifier(folder)
    assert not again.training
    assert torch.equal(again(**batch(folder)).logits, output.logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_config_is_the_familys(family: str, exported: dict[str, Any]) -> None:
    config = json.loads((Path(exported[family][1]) / "config.json").read_text())
    assert config["model_type"] == family
    assert config.get("num_hidden_layers", config.get("n_layers")) == 2
    assert config["id2label"] == {str(index): name for index, name in enumerate(LABELS)}
    assert config["label2id"] == {name: index for index, name in enumerate(LABELS)}


def test_the_familys_own_classifier_cannot_take_the_head_for_its_own(exported: dict[str, Any]) -> None:
    _, info = AutoModelForSequenceClassification.from_pretrained(
        exported["bert"][1], trust_remote_code=False, output_loading_info=True
    )
    assert info["missing_keys"] == {"classifier.weight", "classifier.bias"}


def test_the_familys_classifier_needs_no_code_of_ours(checkpoints: dict[str, str], tmp_path: Path) -> None:
    model = build(checkpoints["bert"], pooling="model").eval()
    export(model, load_tokenizer(checkpoints["bert"]), tmp_path)
    expected = model(**batch(checkpoints["bert"])).logits
    for again in (load_classifier(tmp_path), AutoModelForSequenceClassification.from_pretrained(tmp_path)):
        assert type(again).__name__ == "BertForSequenceClassification"
        assert torch.equal(again(**batch(str(tmp_path))).logits, expected)


def test_a_checkpoint_with_another_head_gives_its_encoder_only(checkpoints: dict[str, str], tmp_path: Path) -> None:
    torch.manual_seed(2)
    masked = BertForMaskedLM(BertConfig(**_BERT))
    save(masked, tmp_path)
    inputs = batch(str(tmp_path))
    expected = AutoModelForMaskedLM.from_pretrained(tmp_path).bert(**inputs).last_hidden_state
    output = build(str(tmp_path), num_layers=None).eval()(**inputs, output_hidden_states=True)
    torch.testing.assert_close(output.hidden_states[-1], expected)
    two = build(checkpoints["bert"], labels=("no", "yes"), pooling="model")
    export(two, load_tokenizer(checkpoints["bert"]), tmp_path / "two")
    assert build(str(tmp_path / "two"), pooling="model")(**inputs).logits.shape == (2, 3)


def test_building_says_nothing(checkpoints: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    export(build(checkpoints["bert"]), load_tokenizer(checkpoints["bert"]), Path(checkpoints["bert"]) / "out")
    assert capfd.readouterr() == ("", "")


def test_the_bundled_model_is_six_layers_deep(check: Callable[..., None]) -> None:
    assert depth("minilm-l6") == 6
    assert resolve(resolve("minilm-l6")) == resolve("minilm-l6")
    assert resolve("google-bert/bert-base-uncased") == "google-bert/bert-base-uncased"
    check()


def test_a_student_deeper_than_its_teacher_is_refused(checkpoints: dict[str, str], check: Callable[..., None]) -> None:
    for names in ({"teacher": "bert"}, {"teacher": "roberta", "student": "bert"}):
        models = {role: checkpoints[family] for role, family in names.items()}
        with pytest.raises(ConfigError, match=r"'student-layers' is 4 but .* has 3 layers: set it to 1 ... 3"):
            check(student_layers=4, **models)
        check(student_layers=3, **models)
    with pytest.raises(ConfigError, match=r"'student-layers' is 5 but .*bert.* has 3 layers"):
        check(student_layers=5, teacher=checkpoints["bert"], student="minilm-l6")


def test_attention_of_models_of_two_vocabularies_is_not_matched(
    checkpoints: dict[str, str], tmp_path: Path, check: Callable[..., None]
) -> None:
    other = save(FAMILIES["bert"](), tmp_path, [*WORDS[:-1], "z"])
    check(teacher=checkpoints["bert"], student=other)
    with pytest.raises(ModelError, match=f"teacher .* reads other tokens than student '{other}', attention cannot"):
        check(teacher=checkpoints["bert"], student=other, student_attention_weight=1.0)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("./none", "there is no folder .*none, correct the path"),
        ("/none", "there is no folder /none"),
        ("~/none", "there is no folder .*none"),
        ("nobody/nothing", "'nobody/nothing' cannot be read: .*minilm-l6, a local folder or a Hugging Face id"),
    ],
)
def test_a_model_that_is_not_there_is_named_in_one_line(
    reference: str, message: str, check: Callable[..., None]
) -> None:
    with pytest.raises(ModelError, match=message) as error:
        check(teacher=reference)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("lost", ["config.json", "tokenizer.json"])
def test_an_incomplete_folder_is_refused_before_any_weights_are_read(
    lost: str, tmp_path: Path, check: Callable[..., None]
) -> None:
    save(FAMILIES["bert"](), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    check(teacher=str(tmp_path))
    (tmp_path / lost).write_text("{")
    with pytest.raises(ModelError, match=f"model '{tmp_path}' cannot be read"):
        check(teacher=str(tmp_path))


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
def test_chosen_layers_are_the_checkpoints(
    family: str, pooling: str, checkpoints: dict[str, str], tmp_path: Path
) -> None:
    """Running the whole model and leaving one layer out is running the chosen layers."""
    model = build(checkpoints[family], num_layers=2, chosen_layers=(0, 2), pooling=pooling).eval()
    whole = AutoModel.from_pretrained(checkpoints[family]).eval()
    lists = (module for module in whole.modules() if isinstance(module, torch.nn.ModuleList))
    skipped = next(layers for layers in lists if len(layers) == 3)[1]
    skipped.forward = lambda hidden, *_, **__: hidden
    inputs = batch(checkpoints[family])
    mine = model(**inputs, output_hidden_states=True).hidden_states
    assert len(mine) == 3 == model.config.num_hidden_layers + 1
    torch.testing.assert_close(mine[-1], whole(**inputs).last_hidden_state)
    export(model, load_tokenizer(checkpoints[family]), tmp_path)
    assert torch.equal(load_classifier(tmp_path)(**inputs).logits, model(**inputs).logits)


def test_a_choice_of_layers_that_are_not_there_is_refused(
    checkpoints: dict[str, str], check: Callable[..., None]
) -> None:
    check(teacher=checkpoints["bert"], student_layers=2, student_layer_choice="0, 2")
    with pytest.raises(ConfigError, match=r"'student-layer-choice' is '0,3' but .* has the layers 0 ... 2"):
        check(teacher=checkpoints["bert"], student_layers=2, student_layer_choice="0,3")
