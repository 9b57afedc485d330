"""Many families of models, each of which trains and is exported, or is refused before the run in one line."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoints import save
from support.config import keys
from support.families import IMAGES, OFTEN, TEXT, tiny_image_model, tiny_text_model
from support.images import save_model

from fedkd_flwr.client.trial import try_pair
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import FedKDError
from fedkd_flwr.models.build import build_pair
from fedkd_flwr.models.compatibility import check_models
from fedkd_flwr.runtime.device import Device

ROOT = Path(__file__).parent.parent.parent
LABELS = ("a", "b", "c")

_ENCODER_DECODER = r"is an encoder-decoder \(.*\), of which a classifier has no use: "
_STAGES = r"is built of stages, its first layers are no student: set run-config key 'model.student'"
_OTHER_LAST_LAYERS = "the first layers of this teacher, as they are, do not make a student: set model.architecture to"
_BATCH_NORM = "has batch normalisation, whose running statistics do not travel: set run-config key 'model.batch-norm'"

REFUSED: dict[tuple[str, str], str] = {
    ("albert", "nested"): r"teacher '.*': its layers share weights: set model.architecture to 'separate'",
    ("bart", "any"): _ENCODER_DECODER + "choose an encoder",
    ("mbart", "any"): _ENCODER_DECODER + "choose an encoder",
    ("t5", "any"): _ENCODER_DECODER + r"save its encoder alone, as T5EncoderModel\.from_pretrained",
    ("mt5", "any"): _ENCODER_DECODER + r"save its encoder alone, as MT5EncoderModel\.from_pretrained",
    ("funnel", "any"): "cannot be cut to 2 of its 4 layers: NotImplementedError",
    ("longformer", "fedkd-paper"): "returns no attention probabilities from token to token, so none can be matched",
    ("fnet", "fedkd-paper"): "returns no attention probabilities from token to token, so none can be matched",
    ("yoso", "fedkd-paper"): "returns no attention probabilities from token to token, so none can be matched",
}
IMAGES_REFUSED: dict[tuple[str, str], str] = {
    **{
        (family, "nested"): _OTHER_LAST_LAYERS
        for family in ("beit", "data2vec-vision", "dinov2_with_registers", "ijepa")
    },
    **{
        (family, "nested"): _STAGES
        for family in ("bit", "convnext", "convnextv2", "focalnet", "hiera", "poolformer", "pvt", "swin", "swinv2")
    },
    **{
        (family, "any"): _BATCH_NORM
        for family in ("efficientnet", "levit", "mobilenet_v2", "mobilevit", "regnet", "resnet")
    },
    ("siglip", "nested"): "has no num_hidden_layers in its config, its first layers are no student",
}


def many(*families: str) -> list[Any]:
    return [family if family in OFTEN else pytest.param(family, marks=pytest.mark.slow) for family in families]


@pytest.fixture
def outcome(defaults: dict[str, Any]) -> Callable[..., str]:
    """What a node says of the models of a run with some keys changed, when it joins; empty: it goes on."""

    def join(labels: tuple[str, ...] = LABELS, **changes: Any) -> str:
        changed = {"model.student-layers": 2} | keys(**changes)
        try:
            config = RunConfig.parse(defaults | changed)
            check_models(config)
            try_pair(config, labels, build_pair(config, labels), Device(torch.device("cpu")))
        except FedKDError as error:
            return str(error)
        return ""

    return join


def assert_as_expected(found: str, family: str, how: str, refused: dict[tuple[str, str], str]) -> None:
    expected = refused.get((family, how), refused.get((family, "any"), ""))
    assert "\n" not in found
    assert re.search(expected, found) if expected else not found


@pytest.mark.parametrize("how", ["nested", "separate"])
@pytest.mark.parametrize("family", many(*TEXT, "t5 encoder", "mt5 encoder"))
def test_a_family_of_text_trains_and_is_exported_or_is_refused(
    family: str, how: str, outcome: Callable[..., str], tmp_path: Path
) -> None:
    reference = save(tiny_text_model(family), tmp_path)
    assert_as_expected(outcome(teacher=reference, architecture=how), family, how, REFUSED)


@pytest.mark.parametrize(
    "family", many("bert", "deberta-v2", "modernbert", "qwen3", "t5 encoder", "longformer", "fnet", "yoso")
)
def test_attention_is_matched_or_refused(family: str, outcome: Callable[..., str], tmp_path: Path) -> None:
    reference = save(tiny_text_model(family), tmp_path)
    assert_as_expected(outcome(teacher=reference, method="fedkd-paper"), family, "fedkd-paper", REFUSED)


@pytest.mark.parametrize("how", ["nested", "separate"])
@pytest.mark.parametrize("family", many(*IMAGES))
def test_a_family_of_images_trains_and_is_exported_or_is_refused(
    family: str, how: str, outcome: Callable[..., str], tmp_path: Path
) -> None:
    """Of models of stages, and of several parts, another is the student."""
    side = 32 if family in ("mobilenet_v2", "mobilevit", "pvt") else 16
    reference = save_model(tiny_image_model(family), tmp_path, side)
    of_their_own = IMAGES_REFUSED.get((family, "nested"), "").startswith((_STAGES, "has no num_hidden_layers"))
    student = {"student": reference} if of_their_own and how == "separate" else {}
    task = {"task": "image-classification", "dataset": "imagefolder:digits", "partition": "iid"}
    found = outcome(teacher=reference, architecture=how, **task, **student)
    assert_as_expected(found, family, how, IMAGES_REFUSED)


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "multi-label", "dataset": "csv:none", "partition": "iid"},
        {"task": "regression", "dataset": "csv:none", "partition": "iid"},
        {"task": "token-classification", "dataset": "iob:none"},
        {"task": "news-recommendation", "dataset": "mind:none"},
        {"pooling": "model", "architecture": "separate"},
        {"lora_rank": 2},
        {"method": "local"},
        {"method": "fedavg"},
        {"method": "fedavg-lora"},
        {"shared_layers": 4},
    ],
    ids=str,
)
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_whatever_a_run_is_it_is_tried(
    family: str, changes: dict[str, Any], outcome: Callable[..., str], tmp_path: Path
) -> None:
    """GPT-2 has no padding token, transposed matrices, and a norm after its last layer."""
    if (family, changes.get("pooling")) == ("gpt2", "model"):
        # Its own classifier makes logits of every token, of which it takes one, and has no bias.
        changes = changes | {"linear_probe": "never", "logit_adjustment": "never"}
    reference = save(tiny_text_model(family, pad_token_id=0 if family == "bert" else None), tmp_path)
    labels = ("1", "9") if changes.get("task") == "regression" else LABELS
    assert outcome(teacher=reference, labels=labels, **changes) == ""


@pytest.mark.parametrize("architecture", ["nested", "separate"])
def test_a_trial_leaves_the_pair_and_the_random_state_as_they_were(
    architecture: str, defaults: dict[str, Any], tmp_path: Path
) -> None:
    reference = save(tiny_text_model("bert"), tmp_path)
    config = RunConfig.parse(
        defaults | {"model.teacher": reference, "model.student-layers": 2, "model.architecture": architecture}
    )
    models = build_pair(config, LABELS)
    pair = models.pair
    before, state = {n: p.detach().clone() for n, p in pair.state_dict().items()}, torch.get_rng_state()
    try_pair(config, LABELS, models, Device(torch.device("cpu")))
    assert all(torch.equal(tensor, before[name]) for name, tensor in pair.state_dict().items())
    assert all(parameter.grad is None for parameter in pair.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_documents_say_of_each_family_how_it_works() -> None:
    """docs/models.md has a row for each outcome, with the families that have it."""
    rows = re.findall(r"^\| (.+?) \| `(.+)` \|$", (ROOT / "docs" / "models.md").read_text(), re.MULTILINE)
    documented = {outcome: set(families.split("`, `")) for outcome, families in rows}
    for families, refused, kind in ((TEXT, REFUSED, "text"), (IMAGES, IMAGES_REFUSED, "images")):
        never = {name for name in families if (name, "any") in refused}
        alone = {"t5 encoder", "mt5 encoder"} if families is TEXT else set()
        apart = {name for name in families if (name, "nested") in refused}
        assert documented[f"{kind}: nested and separate"] == alone | set(families) - never - apart
        assert documented[f"{kind}: separate only"] == apart
        assert documented[f"{kind}: refused"] == never
