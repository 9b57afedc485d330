import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import RunError
from fedkd_flwr.models.hub import load_tokenizer
from fedkd_flwr.models.readers import build_task
from fedkd_flwr.tasks.base import Scores, Task
from fedkd_flwr.tasks.single_label import ClassificationScores
from fedkd_flwr.tasks.text_classification import TextClassification

TEXTS = ["a", "b c d e f g h i", "c d", "e f g"]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TextClassification:
    from transformers import BertTokenizer

    vocabulary = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghi"]))
    tokenizer = BertTokenizer.from_pretrained(vocabulary.parent)
    return TextClassification(tokenizer, ("no", "yes"), max_length=6)


@pytest.fixture(scope="module")
def examples(task: TextClassification) -> pa.Table:
    return task.encode(Dataset.from_dict({"text": TEXTS, "label": [0, 1, 0, 1]}))


def test_it_is_a_task(task: TextClassification) -> None:
    checked: Task = task
    scores: Scores = checked.scores()
    assert (checked.labels, isinstance(scores, ClassificationScores)) == (("no", "yes"), True)


def test_texts_are_cut_to_the_maximal_length(task: TextClassification, examples: pa.Table) -> None:
    assert [len(ids) for ids in examples["tokens"]] == [3, 6, 4, 5]
    assert task.processor.decode(examples["tokens"][1].as_py()) == "[CLS] b c d e [SEP]"
    assert len(examples) == 4


@settings(deadline=None)
@given(order=st.lists(st.integers(0, 3), max_size=40), batch_size=st.integers(1, 5))
def test_batches_hold_every_example_of_the_order_padded_to_their_longest(
    task: TextClassification, examples: pa.Table, order: list[int], batch_size: int
) -> None:
    seen = []
    sizes = []
    for batch in task.batches(examples, batch_size, order):
        ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
        assert {tensor.dtype for tensor in batch.values()} == {torch.int64}
        assert mask.sum(dim=1).max() == ids.shape[1]
        for row, line in enumerate(ids):
            (example,) = [i for i in range(4) if examples["tokens"][i].as_py() == line[mask[row] == 1].tolist()]
            assert (line[mask[row] == 0] == task.processor.pad_token_id).all()
            assert labels[row] == examples["label"][example].as_py()
            seen.append(example)
        sizes.append(len(labels))
    assert sorted(seen) == sorted(order)
    assert len(sizes) == -(-len(order) // batch_size)
    assert all(size <= batch_size for size in sizes)


@settings(deadline=None)
@given(order=st.lists(st.integers(0, 3), min_size=8, max_size=8), batch_size=st.sampled_from([2, 4]))
def test_no_batching_of_a_window_pads_less(
    task: TextClassification, examples: pa.Table, order: list[int], batch_size: int
) -> None:
    batches = list(task.batches(examples, batch_size, order))
    lengths = sorted(len(examples["tokens"][i]) for i in order)
    least = sum(batch_size * max(lengths[i : i + batch_size]) for i in range(0, 8, batch_size))
    assert sum(batch["input_ids"].numel() for batch in batches) == least


def test_the_order_decides_which_batch_comes_first(task: TextClassification, examples: pa.Table) -> None:
    short, long = [0, 2], [1, 3]
    for order, first in ((short + long, short), (long + short, long)):
        batch = next(iter(task.batches(examples, 2, order)))
        assert batch["labels"].tolist() == [examples["label"][i].as_py() for i in first]
        assert batch["input_ids"].shape[1] == max(len(examples["tokens"][i]) for i in first)


def test_without_an_order_each_example_comes_once(task: TextClassification, examples: pa.Table) -> None:
    labels = torch.cat([batch["labels"] for batch in task.batches(examples, 3)])
    assert sorted(labels.tolist()) == [0, 0, 1, 1]


@given(arrays(np.float64, (2, 4, 3), elements=st.floats(-9, 9)))
def test_divergence_is_the_mean_kl_of_softmax_outputs(task: TextClassification, logits: np.ndarray) -> None:
    target, output = torch.from_numpy(logits)
    p, q = torch.softmax(target, -1), torch.softmax(output, -1)
    expected = sum(float((p[i] * (p[i] / q[i]).log()).sum()) for i in range(4)) / 4
    assert float(task.divergence(target, output, torch.zeros(4))) == pytest.approx(expected, abs=1e-12)
    assert float(task.divergence(output, output, torch.zeros(4))) == pytest.approx(0, abs=1e-12)


def test_both_losses_have_the_right_gradients(task: TextClassification) -> None:
    generator = torch.Generator().manual_seed(0)
    target, output = (torch.randn(4, 3, dtype=torch.float64, generator=generator, requires_grad=True) for _ in "to")
    assert torch.autograd.gradcheck(lambda t, x: task.divergence(t, x, torch.zeros(4)), (target, output))
    assert torch.autograd.gradcheck(lambda x: task.task_loss(x, torch.tensor([0, 1, 2, 0])), output)


def test_losses_of_half_precision_logits_are_float32(task: TextClassification) -> None:
    logits = torch.tensor([[20.0, -20.0]], dtype=torch.bfloat16)
    assert task.task_loss(logits, torch.tensor([1])).item() == 40
    assert task.divergence(logits, -logits, torch.tensor([1])).item() == pytest.approx(40)


def reference(logits: Tensor, labels: Tensor) -> dict[str, float]:
    predicted, gold = logits.argmax(-1).tolist(), labels.tolist()
    f1 = []
    for label in set(predicted) | set(gold):
        hits = sum(p == g == label for p, g in zip(predicted, gold, strict=True))
        f1.append(2 * hits / (predicted.count(label) + gold.count(label)))
    losses = -torch.log_softmax(logits, -1)[range(len(gold)), gold]
    return {
        "accuracy": sum(p == g for p, g in zip(predicted, gold, strict=True)) / len(gold),
        "macro-f1": sum(f1) / len(f1),
        "loss": float(losses.mean()),
    }


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_scores_are_those_of_all_examples_however_batched(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 12))
    logits = torch.from_numpy(data.draw(arrays(np.float32, (n, 5), elements=st.floats(-9, 9, width=32), unique=True)))
    labels = torch.tensor(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))
    cut = data.draw(st.integers(0, n))
    scores = ClassificationScores(5)
    for part in (slice(cut), slice(cut, n)):
        if len(labels[part]):
            scores.update(logits[part], labels[part])
    computed = scores.compute()
    assert computed == pytest.approx(reference(logits, labels), abs=1e-5)
    assert all(type(value) is float and math.isfinite(value) for value in computed.values())


def test_of_two_classes_the_second_is_the_positive_one() -> None:
    scores = ClassificationScores(2)
    margins = torch.tensor([3.0, 2.0, 1.0, -1.0, -2.0])
    scores.update(torch.stack([-margins, margins], dim=1), torch.tensor([1, 0, 1, 1, 0]))
    computed = scores.compute()
    assert computed["f1"] == pytest.approx(2 * 2 / (3 + 3))
    assert computed["average-precision"] == pytest.approx((1 / 1 + 2 / 3 + 3 / 4) / 3)


@pytest.mark.filterwarnings("ignore:No positive samples")
@pytest.mark.parametrize("said", [[3.0, 0.0], [0.0, 3.0]], ids=["none is predicted", "one is predicted"])
def test_without_positive_examples_their_scores_are_undefined(said: list[float]) -> None:
    scores = ClassificationScores(2)
    scores.update(torch.tensor([[1.0, 0.0], said]), torch.tensor([0, 0]))
    assert scores.compute().keys() == {"accuracy", "macro-f1", "loss"}
    scores.update(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    assert scores.compute()["f1"] == 0 < scores.compute()["average-precision"]


def test_a_class_that_is_neither_there_nor_predicted_does_not_count() -> None:
    scores = ClassificationScores(3)
    scores.update(torch.tensor([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0]]), torch.tensor([0, 1]))
    assert scores.compute()["macro-f1"] == 1


def test_a_diverged_model_is_an_error_not_a_number() -> None:
    scores = ClassificationScores(2)
    scores.update(torch.tensor([[math.nan, 0.0]]), torch.tensor([0]))
    with pytest.raises(RunError, match="the loss on the held-out examples is nan"):
        scores.compute()


def test_build_task_reads_the_tokenizer_of_the_teacher(defaults: dict[str, Any]) -> None:
    task = build_task(RunConfig.parse(defaults | {"model.max-length": 4}), ("no", "yes"))
    encoded = task.encode(Dataset.from_dict({"text": ["hello world, hello"], "label": [1]}))
    assert task.processor.decode(encoded["tokens"][0].as_py()) == "[CLS] hello world [SEP]"


def test_the_encoding_is_that_of_the_tokenizer_and_the_length(defaults: dict[str, Any], tiny_bert: Path) -> None:
    def build(**changes: Any) -> Task:
        return build_task(RunConfig.parse(defaults | {"model.teacher": str(tiny_bert)} | changes), ("no", "yes"))

    used = build()
    used.encode(Dataset.from_dict({"text": ["a long text"], "label": [1]}))
    assert used.encoding == build().encoding, "a tokenizer remembers its last call"
    assert used.encoding != build(**{"model.max-length": 63}).encoding
    other = build()
    other.processor.add_tokens(["fedkd"])
    assert other.encoding != used.encoding


def test_a_teachers_own_tokenizer_reads_the_same_texts(defaults: dict[str, Any], tiny_bert: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<p>": 0, "<u>": 1, "hello": 2, "world": 3}, unk_token="<u>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    other = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<p>", unk_token="<u>")
    own = build_task(RunConfig.parse(defaults), ("no", "yes")).processor
    task = TextClassification(own, ("no", "yes"), 4, other)
    data = Dataset.from_dict({"text": ["hello", "hello big world big world"], "label": [1, 0]})
    examples = task.encode(data)
    (batch,) = task.batches(examples, 2, [1, 0])
    row = batch["labels"].tolist().index(0)
    assert batch["teacher.input_ids"][row].tolist() == [2, 1, 3, 1]
    assert batch["teacher.input_ids"][1 - row].tolist() == [2, 0, 0, 0]
    assert batch["teacher.attention_mask"][1 - row].tolist() == [1, 0, 0, 0]
    alone = TextClassification(own, ("no", "yes"), 4)
    (plain,) = alone.batches(alone.encode(data), 2, [1, 0])
    assert torch.equal(plain["input_ids"], batch["input_ids"]) and "teacher.input_ids" not in plain
    assert task.encoding != alone.encoding


def test_tokenizers_that_read_alike_are_one(defaults: dict[str, Any], tiny_bert: Path, tmp_path: Path) -> None:
    load_tokenizer("minilm-l6").save_pretrained(tmp_path)
    raw = defaults | {"model.architecture": "separate", "model.student": "minilm-l6"}
    for teacher, alike in ((tmp_path, True), (tiny_bert, False)):
        task = build_task(RunConfig.parse(raw | {"model.teacher": str(teacher)}), ("no", "yes"))
        assert (task.teacher_processor is None) == alike
