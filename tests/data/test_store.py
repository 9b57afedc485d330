"""A node's examples are read and encoded once, and again whenever they would be others."""

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.federation import silo
from support.killed import killed_at

from fedkd_flwr.client.caches import Caches
from fedkd_flwr.client.client import Client
from fedkd_flwr.config.groups import Value
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.data import DataReport, DataSettings, EncodedData, EncodedStore, data_fingerprint
from fedkd_flwr.messages import JoinRequest
from fedkd_flwr.tasks.text_classification import TextClassification

Configure = Callable[..., DataSettings]
Write = Callable[..., str]


def rows(n: int, word: str = "text") -> list[dict[str, Any]]:
    return [{"text": f"{word} {i:03}", "label": ("ham", "spam")[i % 2]} for i in range(n)]


def examples(*texts: int) -> EncodedData:
    def table(ids: int) -> pa.Table:
        return pa.table({"tokens": pa.array([[ids] * 500] * 40, pa.large_list(pa.int32())), "label": [ids] * 40})

    report = DataReport(rows=100, repeats=15, conflicts=5, classes=(40, 40), held_out=texts, cut=3, longest=700)
    return EncodedData("north", ("no", "ja, yes"), "encoding", table(texts[0]), table(texts[1]), report)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows were encoded, call by call."""
    calls: list[int] = []
    encode = TextClassification.encode

    def counted(self: TextClassification, dataset: Any) -> Any:
        calls.append(len(dataset))
        return encode(self, dataset)

    monkeypatch.setattr(TextClassification, "encode", counted)
    return calls


def texts_of(config: RunConfig, node_config: dict[str, Value]) -> set[str]:
    """What a node finds in its encoded examples in a process of its own."""
    prepared = Client(config, node_config)._prepared
    tokenizer = prepared.task.processor
    tables = (prepared.examples.train, prepared.examples.test)
    return {tokenizer.decode(ids.as_py(), skip_special_tokens=True) for table in tables for ids in table["tokens"]}


def tiny(run_config: Callable[..., dict[str, Any]], **changes: Any) -> RunConfig:
    """With labels, as a node with data of its own needs them."""
    return RunConfig.parse(run_config(**{"data.labels": "ham,spam", **changes}))


def test_what_is_saved_is_loaded_for_the_same_data_only(tmp_path: Path) -> None:
    store = EncodedStore(tmp_path, "north")
    assert store.load("data") is None
    store.save("data", examples(1, 2))
    assert store.load("data") == examples(1, 2)
    assert store.load("other data") is None
    assert EncodedStore(tmp_path, "south").load("data") is None
    store.save("other data", examples(3, 4))
    assert store.load("data") is None and store.load("other data") == examples(3, 4)
    assert sorted(path.name for path in (tmp_path / "examples").iterdir()) == [".lock", "north.arrow"]


def test_an_open_table_outlives_the_file_that_replaces_its_own(tmp_path: Path) -> None:
    store = EncodedStore(tmp_path, "north")
    store.save("data", examples(1, 2))
    held = store.load("data")
    store.save("data", examples(3, 4))
    assert held == examples(1, 2)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_damaged_file_is_none(tmp_path: Path, keep: int) -> None:
    store = EncodedStore(tmp_path, "north")
    store.save("data", examples(1, 2))
    path = tmp_path / "examples" / "north.arrow"
    path.write_bytes(path.read_bytes()[:keep])
    assert store.load("data") is None


def test_a_kill_at_any_step_leaves_the_old_examples_or_the_new_ones(tmp_path: Path) -> None:
    outcomes = []
    for step in range(1, 60):
        store = EncodedStore(tmp_path / str(step), "north")
        store.save("old", examples(1, 2))
        killed = killed_at(step, partial(store.save, "new", examples(3, 4)))
        old, new = store.load("old"), store.load("new")
        assert (old, new) in ((examples(1, 2), None), (None, examples(3, 4)))
        outcomes.append(new is not None)
        store.save("next", examples(5, 6))
        assert store.load("next") == examples(5, 6)
        if not killed:
            break
    assert not killed and set(outcomes) == {False, True} and sorted(outcomes) == outcomes


def save_many(folder: Path, number: int) -> None:
    for _ in range(20):
        EncodedStore(folder, "north").save(f"data {number}", examples(number, number))


def test_writers_at_the_same_time_leave_whole_files(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=save_many, args=(tmp_path, number)) for number in range(3)]
    for writer in writers:
        writer.start()
    store = EncodedStore(tmp_path, "north")
    while any(writer.is_alive() for writer in writers):
        for number in range(3):
            assert store.load(f"data {number}") in (None, examples(number, number))
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert sum(store.load(f"data {number}") == examples(number, number) for number in range(3)) == 1


def test_a_disk_that_refuses_costs_time_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "examples").write_text("in the way")
    store = EncodedStore(tmp_path, "north")
    store.save("data", examples(1, 2))
    assert store.load("data") is None
    assert "every message encodes them again" in caplog.text


def test_a_second_process_neither_reads_nor_encodes(
    run_config: Callable[..., dict[str, Any]],
    write: Write,
    tmp_path: Path,
    encoded: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, node_config = tiny(run_config), silo("ward", write("ward.csv", rows(40)), tmp_path / "state")
    first = texts_of(config, node_config)
    assert first == {row["text"] for row in rows(40)} and sum(encoded) == 40
    monkeypatch.setattr("fedkd_flwr.client.dataset.load_node_data", pytest.fail)
    assert texts_of(config, node_config) == first
    assert sum(encoded) == 40


def test_a_node_encodes_when_it_joins_and_says_how_many_rows_are_what(
    run_config: Callable[..., dict[str, Any]], write: Write, tmp_path: Path, encoded: list[int]
) -> None:
    """So that texts that are cut are known before the first round; what it encodes is what its rounds read."""
    config = tiny(run_config, max_length=3)
    place = silo("ward", write("ward.csv", rows(40, word="flight")), tmp_path / "state")
    reply = Client(config, place).join(JoinRequest(lineage=16 * "0"))
    assert (reply.title, reply.labels, reply.train_examples) == ("ward", ("ham", "spam"), 36)
    assert (reply.data.cut, reply.data.longest, sum(encoded)) == (40, 6, 40)
    assert Client(config, place).join(JoinRequest(lineage=16 * "0")) == reply and sum(encoded) == 40


def test_a_changed_file_is_encoded_again(
    run_config: Callable[..., dict[str, Any]], write: Write, tmp_path: Path
) -> None:
    """Also one of the same size, with its time of change put back."""
    path = write("ward.csv", rows(40))
    config, node_config = tiny(run_config), silo("ward", path, tmp_path / "state")
    before = Path(path).stat()
    texts_of(config, node_config)
    write("ward.csv", rows(40, word="note"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (Path(path).stat().st_size, Path(path).stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert texts_of(config, node_config) == {row["text"] for row in rows(40, word="note")}


@pytest.mark.parametrize(
    "change",
    [
        {"max_length": 3},
        {"seed": 1},
        {"test_fraction": 0.5},
        {"max_test_examples": 2},
        {"labels": "spam,ham"},
    ],
)
def test_a_changed_key_is_as_if_nothing_had_been_kept(
    run_config: Callable[..., dict[str, Any]], write: Write, tmp_path: Path, change: dict[str, Any]
) -> None:
    path = write("ward.csv", rows(40))
    texts_of(tiny(run_config), silo("ward", path, tmp_path / "state"))
    changed = [
        Client(tiny(run_config, **change), silo("ward", path, tmp_path / place))._prepared.examples
        for place in ("state", "elsewhere")
    ]
    assert changed[0] == changed[1]


def test_every_key_on_data_and_the_seed_are_in_the_fingerprint(configure: Configure, write: Write) -> None:
    """What reading, sharing out and splitting look up, they find in what the examples are kept under."""
    place = {"partition-id": 0, "num-partitions": 2}
    before = configure(dataset=f"csv:{write('a.csv', rows(20))}", partition="iid")
    others = {"iid": "shard", "auto": ";", "utf-8": "cp1252", False: True}
    changed = [replace(before, seed=1), replace(before, task="multi-label")]
    for key, value in before.data.model_dump(exclude={"dataset", "server_test_data"}).items():
        other = others.get(value, f"{value}x") if isinstance(value, bool | str) else value * 0.5 + 1
        changed.append(replace(before, data=before.data.model_copy(update={key: other})))
    prints = [data_fingerprint(settings, place) for settings in (before, *changed)]
    assert len(set(prints)) == len(prints)


def test_many_nodes_keep_little_in_memory(
    run_config: Callable[..., dict[str, Any]], tmp_path: Path, encoded: list[int]
) -> None:
    """Clients of one process have one task, with its tokenizer; their examples lie on the disk."""
    config = RunConfig.parse(run_config(partition="iid", dataset=f"csv:{_csv(tmp_path, 200)}"))
    caches = Caches()
    clients = [Client(config, {"partition-id": i, "num-partitions": 40}, caches) for i in range(40)]
    assert len({id(client._prepared.task) for client in clients}) == 1
    assert sum(len(client._prepared.examples.train) + len(client._prepared.examples.test) for client in clients) == 200
    again = Client(config, {"partition-id": 0, "num-partitions": 40}, caches)
    assert again._prepared.examples == clients[0]._prepared.examples and sum(encoded) == 200


def _csv(folder: Path, count: int) -> Path:
    path = folder / "all.csv"
    path.write_text("text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows(count)))
    return path
