from dataclasses import replace

import pytest
import torch
from test_losses import NONE, Classification
from torch import Tensor
from transformers import BertConfig, BertModel, ModernBertConfig, ModernBertModel, PreTrainedModel

from fedkd_flwr.distillation import Nested, Weights, pair_loss, trainable, trainable_parameters
from fedkd_flwr.modeling_mean_pooled import MeanPooledClassifier
from fedkd_flwr.models import head


def classifier(layers: int, seed: int) -> MeanPooledClassifier:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=50, hidden_size=8, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=8, num_labels=3
    )
    return MeanPooledClassifier(config, BertModel(config, add_pooling_layer=False))


def nested(shared_layers: int = 0) -> Nested:
    student = classifier(2, 1)
    return Nested(classifier(4, 0), student, head(student), shared_layers)


def test_one_forward_gives_what_the_two_models_give_apart(batch: dict[str, Tensor]) -> None:
    pair = nested().eval()
    teacher, student = pair(batch)
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    assert torch.allclose(student.logits, pair.student(**inputs).logits, atol=1e-6)
    assert torch.equal(teacher.logits, pair.teacher(**inputs).logits)
    upper = classifier(4, 0)
    upper.base_model.load_state_dict(pair.student.base_model.state_dict(), strict=False)  # type: ignore[operator, union-attr]
    assert torch.allclose(teacher.logits, upper.eval()(**inputs).logits, atol=1e-6)


@pytest.mark.parametrize(("shared_layers", "travel"), [(0, 2), (2, 2), (3, 3), (4, 0)])
def test_a_teacher_uses_what_is_its_own_out_of_training_and_the_student_does_not(
    batch: dict[str, Tensor], shared_layers: int, travel: int
) -> None:
    pair = nested(shared_layers)
    assert {name.split(".")[3] for name in pair.lent() if ".layer." in name} == {str(n) for n in range(travel)}
    assert not any(name.startswith("head.") for name in pair.lent())
    if shared_layers == 4:
        pair.keep([name for name in pair.federated() if "head." in name])
        assert {name.split(".")[3] for name in pair.lent() if ".layer." in name} == set("0123")
        pair.keep(())
    teacher, student = pair.eval()(batch)
    pair.own = {name: p.detach().clone() for name, p in pair.lent().items()}
    assert torch.allclose(pair(batch)[0].logits, teacher.logits, atol=1e-6)
    alone = classifier(4, 0).eval()
    alone.load_state_dict(pair.teacher.state_dict())
    for name, tensor in pair.own.items():
        alone.get_parameter(name).data.copy_(tensor.add_(0.1 * torch.randn_like(tensor)))
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    own, same = pair(batch)
    assert torch.allclose(own.logits, alone(**inputs).logits, atol=1e-6)
    assert torch.allclose(own.logits, teacher.logits, atol=1e-6) == (not travel)
    assert torch.allclose(same.logits, student.logits, atol=1e-6)
    for model in (pair, pair.teacher, pair.student):
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    assert torch.allclose(pair.train()(batch)[0].logits, teacher.logits, atol=1e-6)


@pytest.mark.parametrize(("shared_layers", "travel"), [(0, 2), (2, 2), (3, 3), (4, 4)])
def test_every_trainable_parameter_is_either_shared_or_private(shared_layers: int, travel: int) -> None:
    """The lowest layers travel; the teacher's head does so with the last of them."""
    pair = nested(shared_layers)
    shared, private = ({id(p) for p in part.values()} for part in (pair.shared(), pair.private()))
    assert not shared & private
    assert shared | private == {id(p) for p in pair.parameters()}
    for layer in range(4):
        assert any(f"layer.{layer}." in name for name in pair.shared()) == (layer < travel)
        assert any(f"layer.{layer}." in name for name in pair.private()) == (layer >= travel)
    assert ("teacher.head.weight" in pair.shared()) == (travel == 4)
    assert trainable(pair.student).keys() == {n for n in pair.shared() if not n.startswith("teacher.")}


@pytest.mark.parametrize("term", ["teacher_kl", "student_kl"])
def test_kl_reaches_its_pupil_and_the_trunk_below_it(batch: dict[str, Tensor], term: str) -> None:
    """The exit head hears only the student's loss, the private layers only the teacher's, the trunk hears both."""

    def gradients(weights: Weights) -> dict[str, Tensor]:
        pair = nested().eval()
        teacher, student = pair(batch)
        loss = pair_loss(teacher, student, batch["labels"], batch["attention_mask"], Classification(), weights)
        torch.autograd.backward(loss.total)
        found = trainable_parameters(pair)
        return {name: p.grad for name, p in found.items() if p.grad is not None}

    alone, taught = gradients(NONE), gradients(replace(NONE, **{term: 1.0}))
    changed = {name for name in alone if not torch.equal(alone[name], taught[name])}
    assert ("shared.head.weight" in changed) == (term == "student_kl")
    assert ("teacher.head.weight" in changed) == (term == "teacher_kl")
    assert any("layer.3." in name for name in changed) == (term == "teacher_kl")
    assert any("layer.0." in name for name in changed)


def test_a_family_that_normalises_after_its_last_layer_is_refused() -> None:
    def modern(layers: int) -> PreTrainedModel:
        config = ModernBertConfig(
            vocab_size=50, hidden_size=8, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=8,
            num_labels=3, pad_token_id=0,
        )  # fmt: skip
        torch.manual_seed(0)
        encoder = ModernBertModel(config)
        with torch.no_grad():
            encoder.final_norm.weight.mul_(3)
        return MeanPooledClassifier(config, encoder)

    student = modern(2)
    with pytest.raises(ValueError, match="do not make a student"):
        Nested(modern(4), student, head(student))
