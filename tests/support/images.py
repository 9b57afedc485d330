"""Real images for tests: scikit-learn's handwritten digits as a folder of PNG files, and small models of their size."""

from pathlib import Path

import torch
from PIL import Image
from sklearn.datasets import load_digits
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

VIT = {
    "image_size": 16,
    "patch_size": 4,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "initializer_range": 0.2,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
CONVNEXT = {"image_size": 16, "patch_size": 2, "num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 1]}


def save_digits(folder: Path, count: int, start: int = 0, classes: int = 10) -> Path:
    """FOLDER/CLASS/NUMBER.png of some digits, 8 x 8 pixels."""
    digits = load_digits()
    for row in range(start, start + count):
        label = int(digits.target[row])
        if label < classes:
            place = folder / str(label)
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray((digits.images[row] * 15).astype("uint8")).save(place / f"{row}.png")
    return folder


def save_model(model: PreTrainedModel, folder: Path, side: int = 16) -> str:
    """A checkpoint with an image processor that resizes to `side` x `side`."""
    model.save_pretrained(folder)
    size = {"height": side, "width": side}
    ViTImageProcessorPil(size=size, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4]).save_pretrained(folder)
    return str(folder)


def tiny_vit(folder: Path, layers: int = 4) -> str:
    torch.manual_seed(0)
    return save_model(ViTForImageClassification(ViTConfig(num_hidden_layers=layers, **VIT)), folder)


def tiny_convnext(folder: Path) -> str:
    torch.manual_seed(1)
    return save_model(ConvNextForImageClassification(ConvNextConfig(**CONVNEXT)), folder)


def tiny_resnet(folder: Path, layers: tuple[int, ...] = (1, 1), side: int = 16) -> str:
    torch.manual_seed(2)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=list(layers), layer_type="basic")
    return save_model(ResNetForImageClassification(config), folder, side)
