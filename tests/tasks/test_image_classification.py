from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.images import save_digits
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from fedkd_flwr.data.image_folders import find, read
from fedkd_flwr.data.store import EncodedData, EncodedStore
from fedkd_flwr.errors import DataError, ModelError
from fedkd_flwr.tasks.image_classification import ImageClassification

LABELS = tuple("0123456789")
SIZE = {"height": 12, "width": 16}
PROCESSORS = {
    "vit": ViTImageProcessorPil(size=SIZE, image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7]),
    "plain": ViTImageProcessorPil(size=SIZE, do_normalize=False),
    "bytes": ViTImageProcessorPil(size=SIZE, do_normalize=False, do_rescale=False),
    "convnext": ConvNextImageProcessorPil(size={"shortest_edge": 24}, crop_pct=0.875),
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Ten digits of 8 x 8 pixels, one of a larger and wider picture in colours."""
    folder = save_digits(tmp_path_factory.mktemp("digits"), 10)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 90, 4), dtype=np.uint8)
    Image.fromarray(pixels, "RGBA").save(folder / "3" / "colours.png")
    return _numbered(read(find(str(folder))))


def _numbered(images: Dataset) -> Dataset:
    return Dataset(pa.table({"image": images["image"][:], "label": [LABELS.index(name) for name in images["label"]]}))


@pytest.mark.parametrize("name", PROCESSORS)
def test_batches_are_what_the_processor_makes_of_the_files(name: str, digits: Dataset) -> None:
    processor = PROCESSORS[name]
    task = ImageClassification(processor, LABELS)
    examples = task.encode(digits)
    assert examples["pixels"].type.value_type == pa.uint8() and examples["pixels"].num_chunks == 1
    expected = [processor(Image.open(p).convert("RGB"), return_tensors="pt")["pixel_values"] for p in digits["image"]]
    (batch,) = task.batches(examples, batch_size=20)
    torch.testing.assert_close(batch["pixel_values"], torch.cat(expected).float())
    assert batch["labels"].tolist() == digits["label"][:]


@given(order=st.lists(st.integers(0, 10), max_size=30), size=st.integers(1, 12))
def test_batches_follow_the_order(order: list[int], size: int, digits: Dataset) -> None:
    task = ImageClassification(PROCESSORS["vit"], LABELS)
    examples = task.encode(digits)
    (whole,) = task.batches(examples, batch_size=20)
    batches = list(task.batches(examples, size, order))
    assert [len(batch["labels"]) for batch in batches] == [len(order[i : i + size]) for i in range(0, len(order), size)]
    for number, batch in enumerate(batches):
        rows = order[number * size : (number + 1) * size]
        assert all(torch.equal(batch[key], whole[key][rows]) for key in ("pixel_values", "labels"))


def test_kept_pixels_give_the_same_batches(digits: Dataset, tmp_path: Path) -> None:
    """Also of a part of a table, whose first row is not the first of its memory."""
    task = ImageClassification(PROCESSORS["vit"], LABELS)
    examples = task.encode(digits)
    store = EncodedStore(tmp_path, "node")
    store.save("data", EncodedData("node", LABELS, task.encoding, examples, examples.slice(2, 3)))
    kept = store.load("data")
    assert kept is not None
    for fresh, stored in ((examples, kept.train), (examples.slice(2, 3), kept.test)):
        for one, other in zip(task.batches(fresh, 4), task.batches(stored, 4), strict=True):
            assert all(torch.equal(one[key], other[key]) for key in one)


def test_another_processor_is_another_encoding() -> None:
    encodings = {ImageClassification(processor, LABELS).encoding for processor in PROCESSORS.values()}
    assert len(encodings) == len(PROCESSORS)


def test_what_is_no_image_is_named(digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "half.png").write_bytes(Path(digits["image"][0]).read_bytes()[:60])
    for name in ("half.png", "gone.png"):
        broken = Dataset(pa.table({"image": [str(tmp_path / name)], "label": [0]}))
        with pytest.raises(DataError, match=f"{name}: no image that can be read .*: replace or remove it"):
            ImageClassification(PROCESSORS["vit"], LABELS).encode(broken)


def test_images_of_several_sizes_are_refused(digits: Dataset) -> None:
    uneven = ViTImageProcessorPil(do_resize=False)
    with pytest.raises(ModelError, match=r"pixels large, others \(3, 48, 64\): choose one that resizes or crops"):
        ImageClassification(uneven, LABELS).encode(digits)
