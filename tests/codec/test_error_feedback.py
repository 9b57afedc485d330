import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd_flwr.codec import Budget, CodecError, EncodedUpdate, ErrorFeedback, UpdateCodec

CODECS = [
    UpdateCodec(0.5),
    UpdateCodec(0.8, bits=4),
    UpdateCodec(allocation=Budget(300)),
    UpdateCodec(allocation=Budget(500), bits=3),
]


def update(seed: int, scale: float = 1.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"w": (24, 18), "conv": (8, 6, 3), "b": (24,), "s": ()}
    return {name: scale * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@settings(max_examples=60, deadline=None)
@given(codec=st.sampled_from(CODECS), seeds=st.lists(st.integers(0, 2**31), min_size=1, max_size=4))
def test_nothing_is_lost(codec: UpdateCodec, seeds: list[int]) -> None:
    feedback = ErrorFeedback(codec)
    residual: dict[str, torch.Tensor] = {}
    for seed in seeds:
        new = update(seed)
        encoded, left = feedback.encode(new, residual)
        decoded = EncodedUpdate.from_bytes(encoded.to_bytes()).decode()
        for name, tensor in new.items():
            owed = tensor + residual[name] if residual else tensor
            torch.testing.assert_close(decoded[name] + left[name], owed, rtol=0, atol=1e-6 * float(owed.abs().max()))
        residual = left


def test_a_constant_update_arrives_in_the_long_run() -> None:
    """Under any contracting codec the residual stays bounded, so the mean of what arrives tends to the update."""
    constant = update(0)
    for codec in CODECS[2:]:
        feedback, residual = ErrorFeedback(codec), dict[str, torch.Tensor]()
        arrived = {name: torch.zeros_like(tensor) for name, tensor in constant.items()}
        for _ in range(120):
            encoded, residual = feedback.encode(constant, residual)
            for name, tensor in encoded.decode().items():
                arrived[name] += tensor / 120
        for name, tensor in constant.items():
            assert float((arrived[name] - tensor).norm() / tensor.norm()) < 0.15, (codec, name)
        once = codec.encode(constant).decode()
        assert any(float((once[name] - constant[name]).norm() / constant[name].norm()) > 0.3 for name in constant)


def test_inputs_are_left_alone() -> None:
    first, second = update(0), update(1)
    before = {name: tensor.clone() for name, tensor in first.items()}
    feedback = ErrorFeedback(CODECS[0])
    _, residual = feedback.encode(first, {})
    kept = {name: tensor.clone() for name, tensor in residual.items()}
    feedback.encode(second, residual)
    assert all(torch.equal(first[name], before[name]) for name in first)
    assert all(torch.equal(residual[name], kept[name]) for name in kept)


def test_a_residual_of_another_student_is_refused() -> None:
    for residual in (
        {"w": torch.zeros(24, 18)},
        update(0) | {"b": torch.zeros(23)},
        update(0) | {"more": torch.ones(1)},
    ):
        with pytest.raises(CodecError, match="residual"):
            ErrorFeedback(CODECS[0]).encode(update(0), residual)
