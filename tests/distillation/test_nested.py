from dataclasses import replace

import pytest
import torch
from test_losses import NONE, Classification
from torch import Tensor
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertModel,
    ModernBertConfig,
    ModernBertModel,
    T5Config,
    T5EncoderModel,
)

from fedkd_flwr.distillation import Nested, Weights, pair_loss, trainable
from fedkd_flwr.models.modeling_mean_pooled import MeanPooledClassifier
from fedkd_flwr.models.text import head


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
    assert {name.split(".")[3] for name in pair.groups().tied if ".layer." in name} == {str(n) for n in range(travel)}
    assert not any(name.startswith("head.") for name in pair.groups().tied)
    if shared_layers == 4:
        pair.withhold([name for name in pair.sharable() if "head." in name])
        assert {name.split(".")[3] for name in pair.groups().tied if ".layer." in name} == set("0123")
        pair.withhold(())
    teacher, student = pair.eval()(batch)
    values = {name: p.detach().clone() for name, p in pair.groups().tied.items()}
    assert torch.allclose(pair(batch, tied=values)[0].logits, teacher.logits, atol=1e-6)
    alone = classifier(4, 0).eval()
    alone.load_state_dict(pair.teacher.state_dict())
    for name, tensor in values.items():
        alone.get_parameter(name).data.copy_(tensor.add_(0.1 * torch.randn_like(tensor)))
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    own, same = pair(batch, tied=values)
    assert torch.allclose(own.logits, alone(**inputs).logits, atol=1e-6)
    assert torch.allclose(own.logits, teacher.logits, atol=1e-6) == (not travel)
    assert torch.allclose(same.logits, student.logits, atol=1e-6)
    for model in (pair, pair.teacher, pair.student):
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    assert torch.allclose(pair.train()(batch, tied=values)[0].logits, teacher.logits, atol=1e-6)


@pytest.mark.parametrize(("shared_layers", "travel"), [(0, 2), (2, 2), (3, 3), (4, 4)])
def test_every_trainable_parameter_is_either_shared_or_private(shared_layers: int, travel: int) -> None:
    """The lowest layers travel; the teacher's head does so with the last of them."""
    pair = nested(shared_layers)
    groups = pair.groups()
    shared, private = ({id(p) for p in part.values()} for part in (groups.shared, groups.private))
    assert not shared & private
    assert shared | private == {id(p) for p in pair.parameters()}
    for layer in range(4):
        assert any(f"layer.{layer}." in name for name in groups.shared) == (layer < travel)
        assert any(f"layer.{layer}." in name for name in groups.private) == (layer >= travel)
    assert ("teacher.head.weight" in groups.shared) == (travel == 4)
    assert trainable(pair.student).keys() == {n for n in groups.shared if not n.startswith("teacher.")}


@pytest.mark.parametrize("term", ["teacher_kl", "student_kl"])
def test_kl_reaches_its_pupil_and_the_trunk_below_it(batch: dict[str, Tensor], term: str) -> None:
    """The exit head hears only the student's loss, the private layers only the teacher's, the trunk hears both."""

    def gradients(weights: Weights) -> dict[str, Tensor]:
        pair = nested().eval()
        teacher, student = pair(batch)
        loss = pair_loss(teacher, student, batch["labels"], batch["attention_mask"], Classification(), weights)
        torch.autograd.backward(loss.total)
        found = pair.groups().trainable
        return {name: p.grad for name, p in found.items() if p.grad is not None}

    alone, taught = gradients(NONE), gradients(replace(NONE, **{term: 1.0}))
    changed = {name for name in alone if not torch.equal(alone[name], taught[name])}
    assert ("shared.head.weight" in changed) == (term == "student_kl")
    assert ("teacher.head.weight" in changed) == (term == "teacher_kl")
    assert any("layer.3." in name for name in changed) == (term == "teacher_kl")
    assert any("layer.0." in name for name in changed)


def test_a_norm_after_the_last_layer_is_each_models_own(batch: dict[str, Tensor]) -> None:
    def modern(layers: int, seed: int) -> MeanPooledClassifier:
        config = ModernBertConfig(
            vocab_size=50, hidden_size=8, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=8,
            num_labels=3, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2,
        )  # fmt: skip
        torch.manual_seed(seed)
        encoder = ModernBertModel(config)
        with torch.no_grad():
            encoder.final_norm.weight.mul_(3 + seed)
        return MeanPooledClassifier(config, encoder)

    student, teacher = modern(2, 1), modern(4, 0)
    pair = Nested(teacher, student, head(student)).eval()
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    torch.testing.assert_close(pair(batch)[1].logits, student(**inputs).logits)
    of_teacher, of_student = (model.base_model.final_norm.weight for model in (teacher, student))
    assert of_teacher is not of_student and not torch.equal(of_teacher, of_student)
    groups = pair.groups()
    assert {name for name in groups.shared if "norm" in name} >= {"model.final_norm.weight"}
    assert "teacher.model.final_norm.weight" in groups.private


def test_layers_that_share_their_weights_do_not_nest() -> None:
    def albert(layers: int) -> MeanPooledClassifier:
        config = AlbertConfig(
            vocab_size=50, embedding_size=8, hidden_size=8, num_hidden_layers=layers, num_attention_heads=2,
            intermediate_size=8, num_labels=3,
        )  # fmt: skip
        return MeanPooledClassifier(config, AlbertModel(config))

    student = albert(2)
    with pytest.raises(ValueError, match="its layers share weights"):
        Nested(albert(4), student, head(student))


def test_weights_that_have_two_names_stay_one() -> None:
    """A T5 encoder knows its embeddings under two names."""

    def t5(layers: int, seed: int) -> MeanPooledClassifier:
        config = T5Config(vocab_size=50, d_model=8, d_kv=4, d_ff=8, num_layers=layers, num_heads=2, num_labels=3)
        torch.manual_seed(seed)
        return MeanPooledClassifier(config, T5EncoderModel(config))

    student, teacher = t5(2, 1), t5(4, 0)
    Nested(teacher, student, head(student))
    below, above = student.base_model, teacher.base_model
    assert above.shared.weight is above.encoder.embed_tokens.weight is below.shared.weight
