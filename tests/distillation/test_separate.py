import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_losses import Classification
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification

from fedkd_flwr.distillation import LocalTraining, Rate, TeacherStudent, Weights, build_optimizer, layer_map


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
    groups = pair.groups()
    shared, private = groups.shared, groups.private
    assert all(parameter is student.get_parameter(name) for name, parameter in shared.items())
    assert not any("embeddings" in name for name in groups.everything)
    everything = {id(p) for p in pair.parameters() if p.requires_grad}
    assert {id(p) for p in [*shared.values(), *private.values()]} == everything
    assert {name.partition(".")[0] for name in private} == {"teacher", "projections"}


def test_a_teacher_reads_its_own_tokens_and_means_are_matched(batch: dict[str, Tensor]) -> None:
    teacher, student = bert(4, 12), bert(2, 8)
    pair = TeacherStudent(teacher, student, hidden=True)
    own = {"input_ids": torch.tensor([[7, 8, 9, 1, 2], [3, 4, 0, 0, 0]])}
    own["attention_mask"] = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    out_t, out_s = pair(batch | {f"teacher.{name}": tensor for name, tensor in own.items()})
    expected = teacher(**own, output_hidden_states=True)
    plain = pair(batch)[1]
    torch.testing.assert_close(out_t.logits, expected.logits)
    torch.testing.assert_close(out_s.logits, plain.logits)
    for row, (mine, theirs) in enumerate(((5, 4), (2, int(batch["attention_mask"][1].sum())))):
        for layer, j in ((2, 0), (4, 1)):
            torch.testing.assert_close(out_t.hidden[j][row], expected.hidden_states[layer][row, :mine].mean(0))
            torch.testing.assert_close(out_s.hidden[j][row], plain.hidden[j][row, :theirs].mean(0))


def test_logits_of_tokens_are_taken_where_the_teacher_has_them() -> None:
    config = BertConfig(
        vocab_size=50, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, num_labels=3
    )
    teacher, student = (BertForTokenClassification(config).eval() for _ in range(2))
    own = {"input_ids": torch.tensor([[7, 8, 9, 1, 2]]), "attention_mask": torch.ones(1, 5, dtype=torch.int64)}
    batch = {"input_ids": torch.tensor([[4, 5, 6]]), "attention_mask": torch.ones(1, 3, dtype=torch.int64)}
    places = {"teacher.places": torch.tensor([[0, 3, 1]])}
    pair = TeacherStudent(teacher, student, hidden=False)
    logits = pair(batch | {f"teacher.{name}": tensor for name, tensor in own.items()} | places)[0].logits
    torch.testing.assert_close(logits, teacher(**own).logits[:, [0, 3, 1]])


def test_what_a_student_said_when_it_was_received_stays_what_it_said(batch: dict[str, Tensor]) -> None:
    teacher, student = bert(4, 12), bert(2, 8)
    student.bert.embeddings.requires_grad_(False)
    pair = TeacherStudent(teacher, student, hidden=False, hears_received=True)
    received = pair.received_student()
    assert received is not None
    before = received(batch)
    torch.testing.assert_close(before.logits, pair.eval()(batch)[1].logits)
    with torch.no_grad():
        for parameter in pair.groups().shared.values():
            parameter.add_(1.0)
    after = received(batch)
    assert torch.equal(after.logits, before.logits) and not torch.equal(pair(batch)[1].logits, before.logits)
    assert before.features is not None and before.features.shape == (2, 8)
    assert not after.logits.requires_grad


def test_features_are_means_over_the_tokens_that_are_none_of_padding(batch: dict[str, Tensor]) -> None:
    teacher = bert(4, 12)
    pair = TeacherStudent(teacher, bert(2, 8), hidden=False, hears_received=True)
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    last = teacher(**inputs, output_hidden_states=True).hidden_states[-1]
    rows = zip(last, batch["attention_mask"], strict=True)
    means = torch.stack([states[mask.bool()].mean(0) for states, mask in rows])
    pair.train()
    teacher.eval()
    found, of_student = pair(batch)
    torch.testing.assert_close(found.features, means)
    assert of_student.features is None and pair.eval()(batch)[0].features is None


@pytest.mark.parametrize("hears_received", [True, False])
def test_a_teacher_that_hears_the_received_student_learns_the_same_however_that_trains(hears_received: bool) -> None:
    """And one that hears the student which trains beside it does not."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 50, (6, 5, 4), generator=generator)
    data = [{"input_ids": i, "attention_mask": torch.ones_like(i), "labels": i[:, 0] % 3} for i in ids]

    def taught(rate: float) -> dict[str, Tensor]:
        teacher, student = bert(4, 12), bert(2, 8)
        pair = TeacherStudent(teacher, student, hidden=False, hears_received=hears_received).train()
        for layer in [module for module in pair.modules() if isinstance(module, torch.nn.Dropout)]:
            layer.p = 0.0
        groups = pair.groups()
        rates = {n: Rate(rate if n in {f"shared.{s}" for s in groups.shared} else 0.01) for n in groups.trainable}
        optimizer = build_optimizer(groups.trainable, rates)
        LocalTraining(Classification(), Weights(), "adaptive").run(pair, optimizer, data, torch.device("cpu"))
        return teacher.state_dict()

    slow, fast = taught(1e-6), taught(0.1)
    assert all(torch.equal(slow[name], fast[name]) for name in slow) == hears_received
