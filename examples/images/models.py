"""A small ViT and a small ConvNeXt for 28 x 28 images, untrained, as checkpoints: OUT/vit and OUT/convnext.

python examples/images/models.py --out OUT
"""

import argparse
from pathlib import Path

import torch
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

SIDE = 28


def models() -> dict[str, PreTrainedModel]:
    """Six layers of width 128, and four blocks in two stages."""
    torch.manual_seed(0)
    vit = ViTConfig(
        image_size=SIDE,
        patch_size=4,
        hidden_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=256,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.06,  # 0.02 is for a width of 768
    )
    convnext = ConvNextConfig(image_size=SIDE, patch_size=2, num_stages=2, hidden_sizes=[48, 96], depths=[2, 2])
    return {"vit": ViTForImageClassification(vit), "convnext": ConvNextForImageClassification(convnext)}


def main() -> None:
    """Write both with an image processor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    processor = ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    for name, model in models().items():
        model.save_pretrained(out / name)
        processor.save_pretrained(out / name)
        print(f"{out / name}: {model.num_parameters():,} parameters")


if __name__ == "__main__":
    main()
