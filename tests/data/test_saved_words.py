"""Tagged words in data sets of the `datasets` library: read, shared out, refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from hypothesis import given
from hypothesis import strategies as st

from fedkd_flwr.config.groups import DataConfig
from fedkd_flwr.data import DataSettings, data_fingerprint, iob, load_node_data, load_test_data, saved_words
from fedkd_flwr.errors import DataError

Configure = Callable[..., DataSettings]
NAMES = ["O", "B-DRUG", "I-DRUG", "B-ADR", "I-ADR"]
DECLARED = Features({"tokens": List(Value("string")), "tags": List(ClassLabel(names=NAMES)), "ward": Value("string")})
WORDS = st.text(st.characters(exclude_characters="\t\n\r\ufeff", exclude_categories=("Z", "C")), min_size=1).filter(
    lambda word: word != "-DOCSTART-"
)


def split(name: str, count: int, features: Features | None = DECLARED) -> Dataset:
    """Sentences of two words, of which the first of every other one is a drug."""
    rows = [(f"{name}{i}", i % 2, "ns"[i % 2]) for i in range(count)]
    tags: list[list[Any]] = [[drug, 0] if features else [NAMES[drug], "O"] for _, drug, _ in rows]
    columns = {"tokens": [[word, "helps"] for word, _, _ in rows], "tags": tags, "ward": [ward for _, _, ward in rows]}
    return Dataset.from_dict(columns, features)


@pytest.fixture
def tokens(configure: Configure) -> Configure:
    own = {"task": "token-classification", "text_column": "tokens", "label_column": "tags", "partition_column": "ward"}
    return lambda **changes: configure(**own | changes)


def save(folder: Path, **splits: Dataset) -> str:
    (splits.get("alone") or DatasetDict(splits)).save_to_disk(folder / "ward")
    return f"hf:{folder / 'ward'}"


def words(dataset: Dataset) -> set[str]:
    return {row[0] for row in dataset["words"][:]}


def numbered(name: str, count: int) -> set[str]:
    return {f"{name}{i}" for i in range(count)}


def test_the_splits_are_a_nodes_and_declared_tags_its_labels(tokens: Configure, tmp_path: Path) -> None:
    source = save(tmp_path, train=split("a", 20), test=split("b", 9))
    node = load_node_data(tokens(max_test_examples=0), {"data-path": source})
    assert (node.name, node.labels) == ("ward", tuple(NAMES))
    assert (words(node.train), words(node.test)) == (numbered("a", 20), numbered("b", 9))
    for (word, _), tags in zip(node.train["words"][:], node.train["label"][:], strict=True):
        assert [node.labels[tag] for tag in tags] == [NAMES[int(word[1:]) % 2], "O"]


def test_a_split_whose_tags_are_hidden_does_not_count(tokens: Configure, tmp_path: Path) -> None:
    hidden = split("b", 9).map(lambda row: {"tags": [-1, -1]})
    source = save(tmp_path, train=split("a", 20), test=hidden, validation=split("c", 4))
    assert words(load_node_data(tokens(), {"data-path": source}).test) == numbered("c", 4)


def test_texts_as_tags_come_in_splits_too(tokens: Configure, tmp_path: Path) -> None:
    source = save(tmp_path, train=split("a", 20, None), test=split("b", 9, None))
    assert words(load_node_data(tokens(max_test_examples=0), {"data-path": source}).test) == numbered("b", 9)


def test_tags_may_be_texts(tokens: Configure, tmp_path: Path) -> None:
    node = load_node_data(tokens(), {"data-path": save(tmp_path, alone=split("a", 20, None))})
    assert node.labels == ("O", "B-DRUG", "I-DRUG")
    assert len(node.test) == 2 and words(node.train) | words(node.test) == numbered("a", 20)


@pytest.mark.parametrize(
    ("partition", "names"),
    [
        ("iid", ["partition-0", "partition-1"]),
        ("natural", ["n", "s"]),
    ],
)
def test_nodes_share_out_a_data_set(tokens: Configure, tmp_path: Path, partition: str, names: list[str]) -> None:
    source = save(tmp_path, train=split("a", 20), test=split("b", 8))
    config = tokens(dataset=source, partition=partition, max_test_examples=0)
    shares = [load_node_data(config, {"partition-id": i, "num-partitions": 2}) for i in range(2)]
    assert [share.name for share in shares] == names
    for part, found in (("train", numbered("a", 20)), ("test", numbered("b", 8))):
        one, other = (words(getattr(share, part)) for share in shares)
        assert one | other == found and not one & other
    assert len({data_fingerprint(config, {"partition-id": i, "num-partitions": 2}) for i in range(2)}) == 2


def test_a_student_is_scored_on_what_is_held_out(tokens: Configure, tmp_path: Path) -> None:
    source = save(tmp_path, train=split("a", 20), validation=split("b", 8))
    assert words(load_test_data(source, tokens(), tuple(NAMES))) == numbered("b", 8)


@given(
    st.lists(
        st.lists(st.tuples(WORDS, st.sampled_from(["O", "B-A", "I-A", "I-B"])), min_size=1, max_size=6), min_size=1
    )
)
def test_a_data_set_is_read_as_the_same_sentences_in_a_file(
    tmp_path_factory: pytest.TempPathFactory, found: list[list[tuple[str, str]]]
) -> None:
    folder = tmp_path_factory.mktemp("words")
    (folder / "a.tsv").write_text(
        "\n\n".join("\n".join("\t".join(pair) for pair in s) for s in found), encoding="utf-8"
    )
    columns = {"tokens": [[word for word, _ in s] for s in found], "tags": [[tag for _, tag in s] for s in found]}
    source = save(folder, alone=Dataset.from_dict(columns))
    data = DataConfig(text_column="tokens", label_column="tags")
    assert saved_words.read(saved_words.find(source), data, False) == iob.read(iob.find(str(folder / "a.tsv")), data)


@pytest.mark.parametrize(
    ("columns", "changes", "problem"),
    [
        ({"tokens": [["a"], ["b", "c"]], "tags": [["O"], ["O"]]}, {}, r"split train: row 2 has 2 words and 1 tags"),
        ({"tokens": [["a"], []], "tags": [["O"], []]}, {}, "row 2 has 0 words"),
        ({"tokens": [["a"], [" "]], "tags": [["O"], ["O"]]}, {}, "row 2 has a blank among its words"),
        ({"tokens": [["a"], ["b"]], "tags": [["O"], ["S-X"]]}, {}, "row 2 has a tag that is not O, B-TYPE or I-TYPE"),
        ({"tokens": [["a"], ["b"]], "tags": [["O"], ["B-X"]]}, {"labels": "O,B-Y,I-Y"}, "row 2 has a tag of a type"),
        ({"tokens": ["a", "b"], "tags": [["O"], ["O"]]}, {}, "'tokens' holds string, expected lists of texts"),
        (
            {"words": [["a"]], "tags": [["O"]]},
            {},
            "expected a column 'tokens': set .* 'data.text-column' to one of words, tags",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(
    tokens: Configure, tmp_path: Path, columns: dict[str, Any], changes: dict[str, Any], problem: str
) -> None:
    source = save(tmp_path, alone=Dataset.from_dict(columns))
    with pytest.raises(DataError, match=problem):
        load_node_data(tokens(**changes), {"data-path": source})
