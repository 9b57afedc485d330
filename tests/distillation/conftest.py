import pytest
import torch
from torch import Tensor


@pytest.fixture
def batch() -> dict[str, Tensor]:
    return {
        "input_ids": torch.tensor([[2, 7, 9, 3], [2, 8, 3, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
        "labels": torch.tensor([0, 2]),
    }
