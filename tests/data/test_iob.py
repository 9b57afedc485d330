"""Folders and files of tagged words: what is read, repaired, split and refused."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkd_flwr.config.groups import DataConfig
from fedkd_flwr.data import DataSettings, data_fingerprint, load_node_data, load_test_data, node_name
from fedkd_flwr.data.iob import find, read
from fedkd_flwr.data.sentences import tags_of
from fedkd_flwr.errors import ConfigError, DataError

Tagged = list[tuple[str, str]]

WORDS = st.text(st.characters(exclude_characters="\t\n\r\ufeff", exclude_categories=("Z", "C")), min_size=1).filter(
    lambda word: word != "-DOCSTART-"
)


@st.composite
def sentences(draw: st.DrawFn, tags: tuple[str, ...] = ("O", "B-A", "I-A", "B-B-x", "I-B-x")) -> Tagged:
    """Any words with any tags, also tags that are not IOB2."""
    return draw(st.lists(st.tuples(WORDS, st.sampled_from(tags)), min_size=1, max_size=8))


def as_iob(found: list[Tagged], columns: str = "") -> str:
    return "\n\n".join("\n".join(f"{word}\t{columns}{tag}" for word, tag in sentence) for sentence in found)


def numbered(n: int, word: str = "word") -> list[Tagged]:
    return [[(f"{word}{i}", "B-X" if i % 2 else "O")] for i in range(n)]


@pytest.fixture
def tokens(configure: Callable[..., DataSettings]) -> Callable[..., DataSettings]:
    return lambda **changes: configure(task="token-classification", **changes)


def write(folder: Path, **parts: list[Tagged]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, found in parts.items():
        (folder / f"{name}.tsv").write_text(as_iob(found), encoding="utf-8")
    return folder


@given(found=st.lists(sentences(), min_size=1, max_size=5), columns=st.sampled_from(["", "NN\t"]))
def test_words_come_as_they_are_and_tags_as_valid_iob2(
    tmp_path_factory: pytest.TempPathFactory, found: list[Tagged], columns: str
) -> None:
    """Spans as conlleval sees them stay what they are; only their first tag may change, from I- to B-."""
    path = tmp_path_factory.mktemp("iob") / "a.tsv"
    path.write_text(as_iob(found, columns) + "\n", encoding="utf-8")
    kept = read(find(str(path)), DataConfig()).train
    assert [s.words for s in kept] == [tuple(word for word, _ in sentence) for sentence in found]
    for sentence, original in zip(kept, found, strict=True):
        before = "O"
        for tag, (_, written) in zip(sentence.tags, original, strict=True):
            follows = written.startswith("I-") and before[2:] == written[2:]
            assert tag == (written if follows or written[0] != "I" else f"B-{written[2:]}")
            assert not tag.startswith("I-") or before[2:] == tag[2:]
            before = tag


def test_a_repaired_tag_is_noted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.tsv").write_text("a\tO\nb\tI-X\nc\tI-X\n\nd\tB-X\ne\tI-Y\n")
    found = read(find(str(tmp_path / "a.tsv")), DataConfig()).train
    assert [s.tags for s in found] == [("O", "B-X", "I-X"), ("B-X", "B-Y")]
    assert "2 I- tags follow no tag of their type (the first in line 2) and are read as B-" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tO\n\nb O\n", "line 3 has no tab, expected a word, a tab and its tag"),
        ("-DOCSTART- -X- O O\n\na NN O\nsecret\n", "line 4 has no space, expected a word, a space and its tag"),
        ("a NN O\nsecret NN E-X\n", "line 2: its last column is no tag O, B-TYPE or I-TYPE"),
        ("a\tO\n\tO\n", "line 2 has no word before the tab"),
        ("a\tO\nsecret\tS-X\n", "line 2: its last column is no tag O, B-TYPE or I-TYPE"),
        ("a\tO\nb\tB-\n", "line 2: its last column is no tag"),
        ("a\tO\nb\t\n", "line 2: its last column is no tag"),
        ("", "it has no sentence"),
        ("\n \n-DOCSTART-\tO\n", "it has no sentence"),
    ],
)
def test_what_is_no_iob_is_one_line_with_file_and_line_and_no_text(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(text)
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}: {re.escape(message)}") as caught:
        read(find(str(path)), DataConfig())
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(b"a\tO\n\xff\tO\n")
    with pytest.raises(DataError, match=r"a.tsv: line 2 is no utf-8 text: .*'data.encoding'"):
        read(find(str(tmp_path / "a.tsv")), DataConfig())


def test_both_tags_of_every_type_are_labels(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", train=[[("a", "B-Drug"), ("b", "O")]], test=[[("c", "I-ADR")]])
    assert tags_of(read(find(str(folder)), DataConfig())) == ("O", "B-ADR", "I-ADR", "B-Drug", "I-Drug")


@pytest.mark.parametrize(("held_out", "used"), [(("test", "dev"), "test"), (("dev",), "dev")])
def test_a_folder_brings_its_own_held_out_sentences(
    tokens: Callable[..., DataSettings], tmp_path: Path, held_out: tuple[str, ...], used: str
) -> None:
    parts = {name: numbered(10, name) for name in held_out}
    folder = write(tmp_path / "ward.a", train=numbered(20), **parts)
    node = load_node_data(tokens(max_test_examples=0), {"data-path": str(folder)})
    assert node.name == "ward.a" and node.labels == ("O", "B-X", "I-X")
    assert node.test["words"][:] == [[f"{used}{i}"] for i in range(10)]
    assert node.train["label"][:] == [[i % 2] for i in range(20)]
    few = load_node_data(tokens(max_test_examples=4), {"data-path": f"iob:{folder}"})
    assert len(few.test) == 4 and len(few.train) == 20


def test_without_them_and_of_a_file_a_share_is_held_out(tokens: Callable[..., DataSettings], tmp_path: Path) -> None:
    folder = write(tmp_path / "ward", train=numbered(40))
    for path in (folder, folder / "train.tsv"):
        node = load_node_data(tokens(), {"data-path": str(path)})
        assert (len(node.train), len(node.test)) == (36, 4)
        assert sorted(node.train["words"][:] + node.test["words"][:]) == sorted([[f"word{i}"] for i in range(40)])
        assert sorted(node.test["label"][:]) == [[0], [0], [1], [1]]


def test_no_held_out_sentence_is_learnt_from(tokens: Callable[..., DataSettings], tmp_path: Path) -> None:
    folder = write(tmp_path / "a", train=[*numbered(9), *numbered(5, "WORD")], test=numbered(3))
    node = load_node_data(tokens(), {"data-path": str(folder)})
    assert node.test["words"][:] == [["word0"], ["word1"], ["word2"]]
    assert node.train["words"][:] == [[f"word{i}"] for i in range(3, 9)]
    write(folder, train=numbered(3, "Word"))
    with pytest.raises(DataError, match=r"node 'a' has 1 different examples, expected at least 2"):
        load_node_data(tokens(), {"data-path": str(folder)})


def test_a_simulated_node_has_a_folder(tokens: Callable[..., DataSettings], tmp_path: Path) -> None:
    for name, kind in (("b", "Drug"), ("a", "Disease")):
        write(tmp_path / name, train=[[(f"{name}{i}", f"B-{kind}")] for i in range(9)])
    (tmp_path / ".git").mkdir()
    config = tokens(dataset=f"iob:{tmp_path}")
    found = [load_node_data(config, {"partition-id": i, "num-partitions": 2}) for i in range(2)]
    assert [node.name for node in found] == ["a", "b"]
    assert [node.labels for node in found] == [("O", "B-Disease", "I-Disease"), ("O", "B-Drug", "I-Drug")]
    assert node_name(config, {"partition-id": 1, "num-partitions": 2}) == "partition-1"
    with pytest.raises(DataError, match=r"3 nodes cannot have one each of its 2 folders \(a, b\)"):
        load_node_data(config, {"partition-id": 0, "num-partitions": 3})
    (tmp_path / "b" / "train.tsv").unlink()
    with pytest.raises(DataError, match=rf"iob folder {tmp_path}/b: it has no train.tsv"):
        load_node_data(config, {"partition-id": 1, "num-partitions": 2})


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_changed_file_is_another_fingerprint(tokens: Callable[..., DataSettings], tmp_path: Path, part: str) -> None:
    folder = write(tmp_path / "a", train=numbered(9), test=numbered(5, "test"))
    node_config: dict[str, Any] = {"data-path": str(folder)}
    before = data_fingerprint(tokens(), node_config)
    assert data_fingerprint(tokens(), node_config) == before
    write(folder, **{part: numbered(5, "other")})
    assert data_fingerprint(tokens(), node_config) != before


def test_named_labels_are_all_that_may_occur(tokens: Callable[..., DataSettings], tmp_path: Path) -> None:
    folder = write(tmp_path / "a", train=numbered(9))
    node = load_node_data(tokens(labels="O, B-Y, I-Y, B-X, I-X"), {"data-path": str(folder)})
    assert node.labels == ("O", "B-Y", "I-Y", "B-X", "I-X")
    assert {tag for tags in node.train["label"][:] for tag in tags} == {0, 3}
    with pytest.raises(
        DataError, match=r"train.tsv: line 3 has a tag of a type that run-config key 'data.labels' does not"
    ):
        load_node_data(tokens(labels="O, B-Y, I-Y"), {"data-path": str(folder)})


@pytest.mark.parametrize(
    ("changes", "node_config", "message"),
    [
        ({}, {"partition-id": 0, "num-partitions": 2}, "dataset 'tweets' has no tags: set .* to iob:PATH"),
        ({}, {"data-path": "/none"}, "iob data /none: no such folder or file"),
        ({"dataset": "iob:/none"}, {"partition-id": 0, "num-partitions": 2}, "iob data /none: no such folder"),
        ({"task": "text-classification"}, {"data-path": "iob:/none"}, "holds tags, which task 'text-classification'"),
    ],
)
def test_a_node_without_sentences_is_told(
    configure: Callable[..., DataSettings], changes: dict[str, Any], node_config: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load_node_data(configure(**{"task": "token-classification"} | changes), node_config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "iob:/a"}, "dataset is 'iob:/a' but task is 'text-classification'"),
        ({"dataset": "csv:/a", "task": "token-classification"}, "dataset is 'csv:/a' .* set it to iob:PATH"),
        ({"server_test_data": "csv:/a", "task": "token-classification"}, "data.server-test-data is 'csv:/a'"),
        ({"dataset": "iob:/a", "task": "token-classification", "partition": "iid"}, "set data.partition to 'natural'"),
    ],
)
def test_data_of_another_task_are_refused(
    configure: Callable[..., DataSettings], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        configure(**changes)


def test_the_server_scores_on_the_held_out_sentences_of_a_folder(
    tokens: Callable[..., DataSettings], tmp_path: Path
) -> None:
    folder = write(tmp_path / "a", train=numbered(9), test=numbered(2, "test"))
    for source, words in ((folder, [["test0"], ["test1"]]), (folder / "train.tsv", [[f"word{i}"] for i in range(9)])):
        assert load_test_data(f"iob:{source}", tokens(), ("O", "B-X"))["words"][:] == words


CONLL = """-DOCSTART- -X- O O

EU NNP I-NP I-ORG
rejects VBZ I-VP O
German JJ I-NP I-MISC
call NN I-NP O

Peter NNP I-NP I-PER
Blackburn NNP I-NP I-PER
"""


@pytest.mark.parametrize(
    "names",
    [
        ("train.txt", "valid.txt", "test.txt"),
        ("eng.train", "eng.testa", "eng.testb"),
        ("train.conll", "dev.conll", "test.conll"),
        ("Train.TSV", "validation.tsv", "test.bio"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_conlls_own_files_are_read(
    names: tuple[str, str, str], encoding: str, tokens: Callable[..., DataSettings], tmp_path: Path
) -> None:
    train, valid, test = names
    (tmp_path / train).write_text(CONLL + "Z\u00fcrich NNP I-NP I-LOC\n", encoding=encoding)
    (tmp_path / valid).write_text("valid NN I-NP O\n")
    (tmp_path / test).write_text("test NN I-NP I-LOC\n")
    (tmp_path / "._train.txt").write_bytes(b"\xff")
    (tmp_path / "README.txt").write_text("about")
    config = tokens(encoding=encoding)
    node = load_node_data(config, {"data-path": f"iob:{tmp_path}"})
    assert node.train["words"][:] == [["EU", "rejects", "German", "call"], ["Peter", "Blackburn", "Z\u00fcrich"]]
    assert [[node.labels[tag] for tag in row] for row in node.train["label"]] == [
        ["B-ORG", "O", "B-MISC", "O"],
        ["B-PER", "I-PER", "B-LOC"],
    ]
    assert node.test["words"][:] == [["test"]]
    (tmp_path / test).unlink()
    assert load_node_data(config, {"data-path": f"iob:{tmp_path}"}).test["words"][:] == [["valid"]]


def test_two_files_of_one_part_are_asked_about(tmp_path: Path) -> None:
    for name in ("train.txt", "train.tsv"):
        (tmp_path / name).write_text(CONLL)
    with pytest.raises(DataError, match=r"expected one of train.tsv, train.txt: remove others"):
        find(str(tmp_path))


def test_sentences_that_are_left_out_are_counted(tokens: Callable[..., DataSettings], tmp_path: Path) -> None:
    same, other = numbered(12)[:5], [[("Word1", "O")], [("word0", "B-X")]]
    folder = write(tmp_path, train=numbered(12) + same + other, test=[[("WORD3", "B-X")], [("new", "O")]])
    report = load_node_data(tokens(), {"data-path": str(folder)}).report
    assert (report.rows, report.repeats, report.conflicts, report.held_out) == (21, 6, 2, (1, 3))
    assert load_node_data(tokens(), {"data-path": str(folder / "train.tsv")}).report.rows == 19


def test_types_that_are_nearly_one_are_refused_unless_the_run_names_them(
    tokens: Callable[..., DataSettings], tmp_path: Path
) -> None:
    folder = write(tmp_path, train=[[("a", "B-Drug")], [("b", "B-drug")], [("c", "O")]])
    with pytest.raises(DataError, match="2 of its 2 labels differ from another only in case"):
        load_node_data(tokens(), {"data-path": str(folder)})
    named = tokens(labels="O,B-Drug,I-Drug,B-drug,I-drug")
    assert len(load_node_data(named, {"data-path": str(folder)}).labels) == 5
