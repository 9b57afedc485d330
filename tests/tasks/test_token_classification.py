import math
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score
from seqeval.scheme import IOB2

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import ModelError, RunError
from fedkd_flwr.models.hub import load_tokenizer
from fedkd_flwr.models.readers import build_task
from fedkd_flwr.tasks.base import Scores, Task
from fedkd_flwr.tasks.token_classification import UNLABELLED, SpanScores, TokenClassification

TAGS = ("O", "B-A", "I-A", "B-B", "I-B")
ALPHABET = "abcdefghi"
WORDS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12) | st.text(ALPHABET, min_size=1)
SENTENCES = st.lists(
    st.lists(st.tuples(WORDS, st.integers(0, len(TAGS) - 1)), min_size=1, max_size=30), min_size=1, max_size=6
)


@pytest.fixture(scope="module")
def word_piece(tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import BertTokenizer

    folder = tmp_path_factory.mktemp("word-piece")
    pieces = [f"##{letter}" for letter in ALPHABET]
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *ALPHABET, *pieces]))
    return save(BertTokenizer.from_pretrained(folder), folder)


@pytest.fixture(scope="module")
def byte_pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Byte pairs as RoBERTa has them: a word is written with the space before it."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizer

    folder = tmp_path_factory.mktemp("byte-pairs")
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([ALPHABET, "ab cd"], special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    trained.save_model(str(folder))
    return save(RobertaTokenizer.from_pretrained(folder), folder)


def save(tokenizer: Any, folder: Path) -> str:
    from transformers import BertConfig

    tokenizer.save_pretrained(folder)
    BertConfig().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", params=["word_piece", "byte_pairs"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return load_tokenizer(request.getfixturevalue(request.param), words=True)


@pytest.fixture(scope="module")
def task(word_piece: str) -> TokenClassification:
    return TokenClassification(load_tokenizer(word_piece, words=True), TAGS, max_length=8)


def encode(task: TokenClassification, sentences: list[list[tuple[str, int]]]) -> Any:
    words = [[word for word, _ in sentence] for sentence in sentences]
    return task.encode(Dataset.from_dict({"words": words, "label": [[tag for _, tag in s] for s in sentences]}))


def test_it_is_a_task(task: TokenClassification) -> None:
    checked: Task = task
    scores: Scores = checked.scores()
    assert (checked.labels, isinstance(scores, SpanScores)) == (TAGS, True)


@given(sentences=SENTENCES, max_length=st.integers(4, 20))
def test_every_word_has_its_tag_once_on_its_first_piece(
    tokenizer: Any, sentences: list[list[tuple[str, int]]], max_length: int
) -> None:
    """Whatever the words are and however long the sentence: its parts joined are the sentence."""
    task = TokenClassification(tokenizer, TAGS, max_length)
    examples = encode(task, sentences)
    for row, sentence in enumerate(sentences):
        (batch,) = task.batches(examples, 1, [row])
        ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
        assert {tensor.dtype for tensor in batch.values()} == {torch.int64}
        assert ids.shape[1] == mask.sum(dim=1).max() <= max_length
        assert (labels[mask == 0] == UNLABELLED).all()
        assert labels[labels != UNLABELLED].tolist() == [tag for _, tag in sentence]
        inner = [line[mask[i] == 1][1:-1].tolist() for i, line in enumerate(ids)]
        specials = tokenizer(["a"], is_split_into_words=True)["input_ids"]
        assert all([line[0], line[mask[i].sum() - 1]] == [specials[0], specials[-1]] for i, line in enumerate(ids))
        pieces = list(chain.from_iterable(inner))
        expected = [
            tokenizer([word], is_split_into_words=True, add_special_tokens=False)["input_ids"]
            or [tokenizer.unk_token_id]
            for word, _ in sentence
        ]
        assert pieces == list(chain.from_iterable(expected))
        starts = np.cumsum([0, *map(len, expected)])[:-1]
        carried = [label for i, line in enumerate(labels) for label in line[mask[i] == 1][1:-1].tolist()]
        assert [i for i, label in enumerate(carried) if label != UNLABELLED] == starts.tolist()


@given(sentences=SENTENCES, max_length=st.integers(4, 20))
def test_a_teachers_own_tokens_are_those_of_the_same_words(
    word_piece: str, byte_pairs: str, sentences: list[list[tuple[str, int]]], max_length: int
) -> None:
    """Every word has its tag once, and beside it the first piece that the teacher's tokenizer has of that word."""
    own, other = (load_tokenizer(name, words=True) for name in (word_piece, byte_pairs))
    task = TokenClassification(own, TAGS, max_length, other)
    examples = encode(task, sentences)
    for row, sentence in enumerate(sentences):
        (batch,) = task.batches(examples, 1, [row])
        labels, places = batch["labels"], batch["teacher.places"]
        for prefix in ("", "teacher."):
            ids, mask = batch[f"{prefix}input_ids"], batch[f"{prefix}attention_mask"]
            assert ids.shape == mask.shape and ids.shape[1] == mask.sum(dim=1).max() <= max_length
        assert places.shape == labels.shape == batch["input_ids"].shape
        assert labels[labels != UNLABELLED].tolist() == [tag for _, tag in sentence]
        assert (places[labels == UNLABELLED] == 0).all()
        for tokenizer, found in (
            (own, batch["input_ids"][labels != UNLABELLED]),
            (other, batch["teacher.input_ids"].gather(1, places)[labels != UNLABELLED]),
        ):
            expected = [
                (tokenizer([word], is_split_into_words=True, add_special_tokens=False)["input_ids"] or [None])[0]
                for word, _ in sentence
            ]
            unknown = tokenizer.unk_token_id
            assert found.tolist() == [unknown if piece is None else piece for piece in expected]


def test_no_span_is_cut_for_two_tokenizers_where_it_can_be_helped(word_piece: str) -> None:
    """Six pieces fit, as for one tokenizer below."""
    own = load_tokenizer(word_piece, words=True)
    task = TokenClassification(own, TAGS, 8, own)
    (batch,) = task.batches(encode(task, [[("a", tag) for tag in [0, 0, 0, 1, 2, 2, 2, 0, 0, 1]]]), 1)
    read = [[label for label in line.tolist() if label != UNLABELLED] for line in batch["labels"]]
    assert read == [[0, 0, 0], [1, 2, 2, 2, 0, 0], [1]]
    assert torch.equal(batch["teacher.input_ids"], batch["input_ids"])


def test_no_span_is_cut_where_it_can_be_helped(task: TokenClassification) -> None:
    """Six pieces fit: the first part ends before the span that the seventh piece belongs to."""
    tags = [0, 0, 0, 1, 2, 2, 2, 0, 0, 1]
    examples = encode(task, [[("a", tag) for tag in tags]])
    (batch,) = task.batches(examples, 1)
    assert [[label for label in line.tolist() if label != UNLABELLED] for line in batch["labels"]] == [
        [0, 0, 0],
        [1, 2, 2, 2, 0, 0],
        [1],
    ]


@given(order=st.lists(st.integers(0, 3), max_size=40), batch_size=st.integers(1, 5))
def test_batches_hold_every_sentence_of_the_order_beside_others_as_long(
    task: TokenClassification, order: list[int], batch_size: int
) -> None:
    lengths = [1, 5, 2, 6]
    examples = encode(task, [[("a", i)] * length for i, length in enumerate(lengths)])
    batches = list(task.batches(examples, batch_size, order))
    assert sorted(int(labels[1]) for batch in batches for labels in batch["labels"]) == sorted(order)
    assert len(batches) == -(-len(order) // batch_size)
    if len(order) <= 16 * batch_size:
        longest = [batch["labels"].shape[1] - 2 for batch in batches]
        by_length = sorted(lengths[i] for i in order)
        assert sorted(longest) == sorted(max(by_length[i : i + batch_size]) for i in range(0, len(order), batch_size))


def logits_and_labels(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target, output = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=generator)
    labels = torch.tensor([[UNLABELLED, 1, 2, UNLABELLED], [UNLABELLED, 0, UNLABELLED, 4], [3] + [UNLABELLED] * 3])
    return target, output, labels


@given(arrays(np.float64, (3, 4, 5), elements=st.floats(-9, 9)))
def test_losses_do_not_hear_pieces_without_a_tag(task: TokenClassification, noise: np.ndarray) -> None:
    target, output, labels = logits_and_labels(0)
    silent = (labels == UNLABELLED)[..., None] * torch.from_numpy(noise)
    assert torch.equal(task.task_loss(output + silent, labels), task.task_loss(output, labels))
    assert torch.equal(
        task.divergence(target + silent, output - silent, labels), task.divergence(target, output, labels)
    )


def test_losses_are_means_over_the_pieces_with_a_tag(task: TokenClassification) -> None:
    target, output, labels = logits_and_labels(1)
    places = [(i, j) for i in range(3) for j in range(4) if labels[i, j] != UNLABELLED]
    p, q = torch.softmax(target, -1), torch.softmax(output, -1)
    cross_entropy = sum(-float(q[i, j, labels[i, j]].log()) for i, j in places) / len(places)
    kl = sum(float((p[i, j] * (p[i, j] / q[i, j]).log()).sum()) for i, j in places) / len(places)
    assert float(task.task_loss(output, labels)) == pytest.approx(cross_entropy)
    assert float(task.divergence(target, output, labels)) == pytest.approx(kl)
    target.requires_grad_()
    output.requires_grad_()
    assert torch.autograd.gradcheck(lambda t, x: task.divergence(t, x, labels), (target, output))
    assert torch.autograd.gradcheck(lambda x: task.task_loss(x, labels), output)


def test_losses_of_half_precision_logits_are_float32(task: TokenClassification) -> None:
    logits = torch.tensor([[[20.0, -20.0]]], dtype=torch.bfloat16)
    assert task.task_loss(logits, torch.tensor([[1]])).item() == 40
    assert task.divergence(logits, -logits, torch.tensor([[1]])).item() == pytest.approx(40)


@pytest.mark.filterwarnings("ignore")
@given(st.data())
def test_scores_are_those_of_seqeval_however_batched(data: st.DataObject) -> None:
    tag = st.integers(0, len(TAGS) - 1)
    found = data.draw(st.lists(st.lists(st.tuples(tag, tag), min_size=1, max_size=9), min_size=1, max_size=6))
    scores, cut = SpanScores(TAGS), data.draw(st.integers(0, len(found)))
    for part in (found[:cut], found[cut:]):
        if part:
            labels = torch.full((len(part), 19), UNLABELLED)
            logits = torch.randn(len(part), 19, len(TAGS), generator=torch.Generator().manual_seed(0))
            for line, sentence in enumerate(part):
                for place, (gold, predicted) in enumerate(sentence):
                    labels[line, 2 * place] = gold
                    logits[line, 2 * place, predicted] = 9.0
            scores.update(logits, labels)
    gold, predicted = ([[TAGS[pair[which]] for pair in sentence] for sentence in found] for which in (0, 1))
    strict = {"mode": "strict", "scheme": IOB2, "zero_division": 0}
    computed = scores.compute()
    loss = computed.pop("loss")
    expected = {"accuracy": accuracy_score(gold, predicted)}
    if any(tag.startswith("B-") for line in gold for tag in line):
        expected |= {
            "span-f1": f1_score(gold, predicted, **strict),
            "precision": precision_score(gold, predicted, **strict),
            "recall": recall_score(gold, predicted, **strict),
        }
    assert computed == pytest.approx(expected)
    assert all(type(value) is float for value in computed.values()) and loss > 0


@pytest.mark.parametrize("said", [[0, 0], [1, 2]], ids=["none is predicted", "one is predicted"])
def test_without_a_span_to_find_scores_of_spans_are_undefined(said: list[int]) -> None:
    scores = SpanScores(("O", "B-A", "I-A"))
    scores.update(torch.eye(3)[torch.tensor([said])], torch.tensor([[0, 0]]))
    assert scores.compute().keys() == {"accuracy", "loss"}
    scores.update(torch.eye(3)[torch.tensor([[0, 0]])], torch.tensor([[1, 2]]))
    assert scores.compute()["span-f1"] == scores.compute()["recall"] == scores.compute()["precision"] == 0


def test_an_inside_without_a_beginning_is_no_span() -> None:
    scores = SpanScores(("O", "B-A", "I-A"))
    scores.update(torch.eye(3)[torch.tensor([[1, 2, 0, 2]])], torch.tensor([[1, 2, 0, 1]]))
    assert scores.compute()["precision"] == 1 and scores.compute()["recall"] == 0.5


def test_a_diverged_model_is_an_error_not_a_number() -> None:
    scores = SpanScores(("O", "B-A", "I-A"))
    scores.update(torch.tensor([[[math.nan, 0.0, 0.0]]]), torch.tensor([[0]]))
    with pytest.raises(RunError, match="the loss on the held-out examples is nan"):
        scores.compute()


def test_build_task_makes_the_task_of_the_run(defaults: dict[str, Any], word_piece: str) -> None:
    raw = defaults | {"task": "token-classification", "model.teacher": word_piece, "model.max-length": 8}
    task = build_task(RunConfig.parse(raw), TAGS)
    assert isinstance(task, TokenClassification)
    assert task.encoding == build_task(RunConfig.parse(raw | {"model.max-length": 9}), TAGS).encoding
    assert task.encoding != build_task(RunConfig.parse(raw | {"task": "text-classification"}), TAGS).encoding


def test_a_tokenizer_that_knows_no_words_is_refused(word_piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.PreTrainedTokenizerBase.is_fast", False, raising=False)
    monkeypatch.setattr("transformers.PreTrainedTokenizerFast.is_fast", False)
    with pytest.raises(ModelError, match="not a fast one, which token classification needs"):
        load_tokenizer(word_piece, words=True)
