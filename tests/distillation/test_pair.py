import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification

from fedkd_flwr.distillation import TeacherStudent, layer_map


def bert(layers: int, width: int) -> BertForSequenceClassification:
    torch.manual_seed(layers)
    config = BertConfig(
        vocab_size=50,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=8,
        num_labels=3,
        attn_implementation="eager",
    )
    return BertForSequenceClassification(config).eval()


@given(st.integers(1, 48), st.integers(1, 48))
def test_the_layer_map_rises_ends_at_the_last_layer_and_is_near_the_proportion(a: int, b: int) -> None:
    student, teacher = sorted((a, b))
    layers = layer_map(teacher, student)
    assert len(layers) == len(set(layers)) == student
    assert list(layers) == sorted(layers) and layers[-1] == teacher and layers[0] >= 1
    for j, layer in enumerate(layers, start=1):
        assert abs(layer - j * teacher / student) <= 0.5
        if teacher % student == 0:
            assert layer == j * (teacher // student)


def test_a_student_deeper_than_its_teacher_is_refused() -> None:
    with pytest.raises(ValueError, match="3 layers has no teacher of 2"):
        layer_map(2, 3)


def test_w_is_the_identity_where_widths_agree(batch: dict[str, Tensor]) -> None:
    teacher, student = bert(4, 8), bert(2, 8)
    pair = TeacherStudent(teacher, student, hidden=True, attention=True)
    out_t, out_s = pair(batch)
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    hidden = student(**inputs, output_hidden_states=True).hidden_states
    assert torch.equal(out_s.hidden[0], hidden[1]) and torch.equal(out_s.hidden[1], hidden[2])
    expected = teacher(**inputs, output_hidden_states=True, output_attentions=True)
    assert torch.equal(out_t.hidden[0], expected.hidden_states[2])
    assert torch.equal(out_t.hidden[1], expected.hidden_states[4])
    assert torch.equal(out_t.attentions[0], expected.attentions[1])
    assert torch.equal(out_t.attentions[1], expected.attentions[3])


def test_w_bridges_widths(batch: dict[str, Tensor]) -> None:
    out_t, out_s = TeacherStudent(bert(5, 12), bert(2, 8), hidden=True)(batch)
    assert [h.shape for h in out_s.hidden] == [h.shape for h in out_t.hidden] == [(2, 4, 12)] * 2


def test_what_is_not_matched_is_not_there(batch: dict[str, Tensor]) -> None:
    pair = TeacherStudent(bert(4, 8), bert(2, 8), hidden=False, attention=False)
    out_t, out_s = pair(batch)
    assert out_t.hidden == out_s.hidden == out_t.attentions == out_s.attentions == ()
    assert not list(pair.projections.parameters())


def test_only_the_students_trainable_parameters_are_shared() -> None:
    teacher, student = bert(4, 8), bert(2, 8)
    for model in (teacher, student):
        for parameter in model.bert.embeddings.parameters():
            parameter.requires_grad = False
    pair = TeacherStudent(teacher, student, hidden=True)
    shared, private = pair.shared(), pair.private()
    assert all(parameter is student.get_parameter(name) for name, parameter in shared.items())
    assert not any("embeddings" in name for name in shared | private)
    everything = {id(p) for p in pair.parameters() if p.requires_grad}
    assert {id(p) for p in [*shared.values(), *private.values()]} == everything
    assert {name.partition(".")[0] for name in private} == {"teacher", "projections"}
