"""One label per image: read and resized once, kept as bytes, normalised batch by batch."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from fedkd_flwr.config.groups import ModelConfig
from fedkd_flwr.data.image_files import read_image
from fedkd_flwr.errors import ModelError
from fedkd_flwr.tasks.base import Readers
from fedkd_flwr.tasks.single_label import SingleLabel

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from numpy.typing import NDArray
    from transformers import BaseImageProcessor


class ImageClassification(SingleLabel):
    """Single-label classification of images: cross-entropy, KL divergence, accuracy and macro F1."""

    def __init__(self, processor: "BaseImageProcessor", labels: tuple[str, ...]) -> None:
        """A task.

        Args:
            processor: makes images of one size.
            labels: the names of the classes.
        """
        self.processor = processor
        self.teacher_processor = None
        self.labels = labels

    @classmethod
    def build(cls, readers: Readers, labels: tuple[str, ...], model: ModelConfig) -> Self:
        """See `Task.build`."""
        return cls(readers.student, labels)

    @cached_property
    def encoding(self) -> str:
        """SHA-256 of the image processor."""
        described = [type(self.processor).__name__, self.processor.to_dict()]
        return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what a model is given."""
        from PIL import Image

        channels, height, width = self._resized(Image.new("RGB", (64, 48))).shape
        return channels, height, width

    def encode(self, dataset: "Dataset") -> "pa.Table":
        """Read and resize the images of the columns `image` (path) and `label` (int) of a data set.

        Returns:
            Columns `pixels` (uint8, all of an image: channels, height, width) and `label` (int64).

        Raises:
            DataError: a file holds no image that `read_image` can read.
            ModelError: the processor makes images of several sizes.
        """
        paths = dataset["image"][:]
        pixels = np.empty((len(paths), *self.shape), np.uint8)
        for place, path in zip(pixels, paths, strict=True):
            image = self._resized(read_image(path))
            if image.shape != self.shape:
                raise ModelError(
                    f"the teacher's image processor makes {path} {image.shape} pixels large, others {self.shape}: "
                    "choose one that resizes or crops to one size"
                )
            place[:] = image
        return self._table(pixels, dataset["label"][:])

    def made_up(self) -> "pa.Table":
        """Two examples of nobody, as `encode` returns them: noise."""
        return self._table(np.random.default_rng(0).integers(0, 256, (2, *self.shape), np.uint8), [0, 1])

    def batches(
        self, examples: "pa.Table", batch_size: int, order: Sequence[int] | None = None
    ) -> Iterator[dict[str, Tensor]]:
        """Batches of images in order.

        Args:
            examples: what `encode` returned.
            batch_size: images of a batch; the last one may hold fewer.
            order: indices to go through, repeats allowed; None: each example once.

        Yields:
            `pixel_values`, float32 [batch, channels, height, width], rescaled and normalised as the processor does;
            `labels`, int64 [batch].
        """
        pixels = np.from_dlpack(examples["pixels"].chunk(0).flatten()).reshape(-1, *self.shape)
        labels = np.from_dlpack(examples["label"].chunk(0))
        order = range(len(examples)) if order is None else order
        for start in range(0, len(order), batch_size):
            rows = list(order[start : start + batch_size])
            yield {
                "pixel_values": self._normalised(torch.from_numpy(pixels[rows])),
                "labels": torch.from_numpy(labels[rows]),
            }

    @staticmethod
    def _table(pixels: "NDArray[np.uint8]", labels: Sequence[int]) -> "pa.Table":
        import pyarrow as pa

        column = pa.FixedSizeListArray.from_arrays(pa.array(pixels.reshape(-1)), int(np.prod(pixels.shape[1:])))
        return pa.table({"pixels": column, "label": pa.array(labels, pa.int64())})

    def _resized(self, image: Any) -> "NDArray[np.uint8]":
        processed = self.processor(image, do_rescale=False, do_normalize=False, return_tensors="np")
        pixels: NDArray[np.uint8] = processed["pixel_values"][0]
        return pixels

    def _normalised(self, pixels: Tensor) -> Tensor:
        """As the processor itself would have gone on."""
        values = pixels.float()
        if self.processor.do_rescale:
            values *= self.processor.rescale_factor
        if self.processor.do_normalize:
            mean, std = (torch.tensor(x)[:, None, None] for x in (self.processor.image_mean, self.processor.image_std))
            values = (values - mean) / std
        return values
