from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.config import keys
from support.images import CONVNEXT, VIT, save_model, tiny_convnext, tiny_vit
from transformers import (
    AutoModel,
    BeitConfig,
    BeitForImageClassification,
    BeitForMaskedImageModeling,
    BitConfig,
    BitForImageClassification,
    ConvNextConfig,
    ConvNextModel,
    DeiTConfig,
    DeiTForImageClassification,
    Dinov2Config,
    Dinov2ForImageClassification,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTForImageClassification,
    ViTModel,
)

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.distillation import trainable
from fedkd_flwr.errors import ConfigError, ModelError
from fedkd_flwr.models.build import build_pair
from fedkd_flwr.models.compatibility import check_models
from fedkd_flwr.models.image import build_image_classifier, image_head, noise
from fedkd_flwr.models.text import head_parameter_names

LABELS = ("cat", "dog", "eel")
_ROW: dict[str, Any] = {"num_hidden_layers": 3} | VIT
FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "vit": lambda: ViTForImageClassification(ViTForImageClassification.config_class(**_ROW)),
    "deit": lambda: DeiTForImageClassification(DeiTConfig(**_ROW)),
    "dinov2": lambda: Dinov2ForImageClassification(Dinov2Config(**_ROW)),
}
STAGES: dict[str, Callable[[], PreTrainedModel]] = {
    "swin": lambda: SwinForImageClassification(
        SwinConfig(image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=2)
    ),
    "bit": lambda: BitForImageClassification(
        BitConfig(embedding_size=8, hidden_sizes=[32, 64], depths=[1, 1], num_groups=4, layer_type="preactivation")
    ),
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("models")
    found = {name: save_model(build(), folder / name) for name, build in (FAMILIES | STAGES).items()}
    return found | {"convnext": tiny_convnext(folder / "convnext")}


@pytest.fixture
def configured(defaults: dict[str, Any]) -> Callable[..., RunConfig]:
    own = {
        "task": "image-classification",
        "data.dataset": "imagefolder:digits",
        "data.partition": "iid",
        "model.student-layers": 2,
    }
    return lambda **changes: RunConfig.parse(defaults | own | keys(**changes))


def build(reference: str, num_layers: int | None = None, **changes: Any) -> PreTrainedModel:
    arguments = {"labels": LABELS, "attentions": False, "seed": 0} | changes
    return build_image_classifier(reference, num_layers=num_layers, **arguments)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_layers_are_the_checkpoints(family: str, checkpoints: dict[str, str]) -> None:
    model = build(checkpoints[family], num_layers=2).eval()
    whole = AutoModel.from_pretrained(checkpoints[family]).eval()
    images = noise(model)
    mine, theirs = (m(**images, output_hidden_states=True).hidden_states for m in (model, whole))
    assert (len(mine), len(theirs)) == (3, 4)
    for a, b in zip(mine, theirs[:3], strict=True):
        torch.testing.assert_close(a, b)
    assert model(**images).logits.shape == (2, 3)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_goes_on_where_the_layers_end(family: str, checkpoints: dict[str, str]) -> None:
    model = build(checkpoints[family], num_layers=2).eval()
    last = model.base_model(**noise(model)).last_hidden_state
    torch.testing.assert_close(image_head(model)(last, {}), model(**noise(model)).logits)


@pytest.mark.parametrize("family", [*FAMILIES, *STAGES, "convnext"])
def test_all_that_logits_depend_on_learns(family: str, checkpoints: dict[str, str]) -> None:
    model = build(checkpoints[family])
    model(pixel_values=torch.randn(4, 3, 16, 16)).logits.square().sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    learns = trainable(model).keys()
    assert reached <= learns and learns == {name for name, _ in model.named_parameters()}
    assert any("classifier" in name for name in head_parameter_names(model))


def test_the_seed_alone_decides_the_new_weights(checkpoints: dict[str, str]) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, same, other = (build(checkpoints["vit"], seed=seed).classifier.weight for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(state, torch.get_rng_state())


def test_a_plain_encoder_makes_a_classifier_and_an_incomplete_one_is_refused(tmp_path: Path) -> None:
    encoder = ViTModel(ViTModel.config_class(**_ROW))
    save_model(encoder, tmp_path / "whole")
    model = build(str(tmp_path / "whole"))
    assert torch.equal(model.vit.embeddings.cls_token, encoder.embeddings.cls_token)
    encoder.config.num_hidden_layers = 4
    save_model(encoder, tmp_path / "short")
    with pytest.raises(ModelError, match=r"lacks 16 weights of its encoder, such as 'vit.layers.3"):
        build(str(tmp_path / "short"))


@pytest.mark.parametrize("family", FAMILIES)
def test_families_that_classify_by_their_first_token_nest(
    family: str, checkpoints: dict[str, str], configured: Callable[..., RunConfig]
) -> None:
    config = configured(teacher=checkpoints[family])
    check_models(config)
    models = build_pair(config, LABELS, True)
    images = noise(models.pair.teacher)
    teacher, learner = models.pair.eval()(images)
    assert models.student is not None
    torch.testing.assert_close(learner.logits, models.student(**images).logits)
    assert not torch.equal(learner.logits, teacher.logits)


def test_a_family_that_classifies_otherwise_does_not_nest(tmp_path: Path, configured: Callable[..., RunConfig]) -> None:
    reference = save_model(BeitForImageClassification(BeitConfig(**_ROW)), tmp_path / "beit")
    with pytest.raises(ModelError, match=r"teacher '.*beit'.*: set model.architecture to 'separate'"):
        build_pair(configured(teacher=reference), LABELS, True)
    apart = configured(teacher=reference, architecture="separate")
    check_models(apart)
    assert build_pair(apart, LABELS, True).student.config.num_hidden_layers == 2  # type: ignore[union-attr]


@pytest.mark.parametrize("family", [*STAGES, "convnext"])
def test_models_of_stages_need_a_student_of_their_own(
    family: str, checkpoints: dict[str, str], configured: Callable[..., RunConfig]
) -> None:
    staged, vit = checkpoints[family], checkpoints["vit"]
    for changes in ({}, {"architecture": "separate"}, {"method": "fedavg-student"}):
        with pytest.raises(
            ConfigError, match=r"is built of stages, its first layers are no student: set .* 'model.student'"
        ):
            check_models(configured(teacher=staged, **changes))
    with pytest.raises(ConfigError, match=r"is built of stages, it has no layers to match: set distillation.hidden"):
        check_models(configured(teacher=vit, student=staged, architecture="separate", hidden=1.0))
    for teacher, student in ((vit, staged), (staged, vit), (staged, staged)):
        check_models(configured(teacher=teacher, student=student, architecture="separate"))
    for method in ("fedavg", "local"):
        check_models(configured(teacher=staged, method=method))


def test_a_pooler_that_a_checkpoint_was_not_trained_with_is_new(tmp_path: Path) -> None:
    masked = BeitForMaskedImageModeling(BeitConfig(**_ROW))
    model = build(save_model(masked, tmp_path / "masked"))
    assert torch.equal(model.beit.embeddings.cls_token, masked.beit.embeddings.cls_token)
    assert torch.equal(model.beit.pooler.layernorm.weight, torch.ones(VIT["hidden_size"]))


def test_batch_normalisation_is_refused_until_nodes_keep_theirs(
    tmp_path: Path, configured: Callable[..., RunConfig]
) -> None:
    model = ResNetForImageClassification(ResNetConfig(hidden_sizes=[8, 16], depths=[1, 1], embedding_size=8))
    resnet = save_model(model, tmp_path / "resnet")
    vit = tiny_vit(tmp_path / "vit")
    for changes in ({"teacher": resnet, "method": "fedavg"}, {"teacher": vit, "student": resnet}):
        with pytest.raises(
            ModelError, match=r"resnet' has batch normalisation, .*'model.batch-norm' to 'local', .*or choose a"
        ):
            check_models(configured(architecture="separate", **changes))
        check_models(configured(architecture="separate", batch_norm="local", **changes))


def test_models_that_do_not_take_the_teachers_images_are_refused(
    tmp_path: Path, configured: Callable[..., RunConfig]
) -> None:
    vit = tiny_vit(tmp_path / "vit")
    large = save_model(
        ViTForImageClassification(ViTForImageClassification.config_class(**_ROW | {"image_size": 32})),
        tmp_path / "large",
    )
    grey = save_model(ConvNextModel(ConvNextConfig(**CONVNEXT, num_channels=1)), tmp_path / "grey")
    for student in (large, grey):
        with pytest.raises(
            ModelError, match=r"does not take images of 3 x 16 x 16 \(channels, height, width\), as the"
        ):
            check_models(configured(teacher=vit, student=student, architecture="separate"))


def test_a_text_model_reads_no_images(tiny_bert: Path, configured: Callable[..., RunConfig]) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        check_models(configured(teacher=str(tiny_bert)))
