"""Fashion-MNIST (Debian package dataset-fashion-mnist) as an image folder: OUT/{train,test}/CLASS/NUMBER.png.

python examples/images/fashion_mnist.py --out OUT [--idx FOLDER] [--train 12000] [--test 2000]
"""

import argparse
import gzip
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")


def read_idx(path: Path, header: int) -> np.ndarray:
    """The bytes of a gzipped idx file after its header: two numbers of 4 bytes, of images four."""
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), np.uint8, offset=header)


def main() -> None:
    """Write the first so many images of each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--idx", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--train", type=int, default=12_000)
    parser.add_argument("--test", type=int, default=2_000)
    arguments = parser.parse_args()
    for part, prefix, count in (("train", "train", arguments.train), ("test", "t10k", arguments.test)):
        images = read_idx(arguments.idx / f"{prefix}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)[:count]
        labels = read_idx(arguments.idx / f"{prefix}-labels-idx1-ubyte.gz", 8)[:count]
        for name in CLASSES:
            (arguments.out / part / name).mkdir(parents=True, exist_ok=True)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            Image.fromarray(image).save(arguments.out / part / CLASSES[label] / f"{number:05d}.png")
        print(f"{arguments.out / part}: {len(images)} images")


if __name__ == "__main__":
    main()
