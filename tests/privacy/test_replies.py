"""No reply of a node with data of its own holds a value of the data, a column that the run did not name, or a path."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from flwr.app import Message, RecordDict
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from pydantic import BaseModel
from support.federation import Config, ask, history, short_files, silo
from support.loopback import LoopbackGrid, run_server

from fedkd_flwr.errors import RunError
from fedkd_flwr.messages import (
    DataCounts,
    EvaluateReply,
    EvaluateRequest,
    Evaluation,
    JoinReply,
    JoinRequest,
    Refresh,
    Reply,
    TrainReply,
    TrainRequest,
)
from fedkd_flwr.records import answer, from_records

SECRET = "Zq7x"
"""Part of every cell, unnamed column and path of what follows."""

LINEAGE = 16 * "a"
LABELS = {"labels": "no,yes"}

FIELDS: dict[type[BaseModel], set[str]] = {
    JoinReply: {
        "node", "partition", "title", "labels", "train_examples", "data", "label_shares", "partitions", "round",
        "version", "digest", "encoder_digest", "frozen_digest", "teacher_bytes", "device", "notes",
    },
    DataCounts: {"rows", "repeats", "conflicts", "unlabelled", "cut", "longest"},
    Evaluation: {"student", "teacher", "student_own_labels", "teacher_own_labels", "examples"},
    EvaluateReply: {"node", "version", "evaluation", "not_exported", "seconds", "worker", "notes"},
    TrainReply: {
        "lineage", "node", "round", "version", "evaluation", "losses", "distillation", "seconds",
        "worker", "notes", "update",
    },
}  # fmt: skip
"""All that leaves a node."""


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    """The owner's folder, whose name says what it is."""
    place = tmp_path / f"{SECRET}-ward"
    place.mkdir()
    return place


def said(reply: Message) -> str:
    """All that a reply says, but for the numbers of an update."""
    if reply.has_error():
        return str(reply.error.reason)
    return json.dumps({name: dict(record) for name, record in reply.content.config_records.items()})


def rows(count: int = 40) -> str:
    return "".join(f"{SECRET} text {i},{('no', 'yes')[i % 2]},{SECRET}{i}\n" for i in range(count))


def table(count: int = 40) -> str:
    return f"text,label,{SECRET}-hiv\n{rows(count)}"


def first_round(lineage: str = LINEAGE) -> TrainRequest:
    return TrainRequest(lineage=lineage, round=1, evaluate=True, refresh=Refresh.of("nothing", 0))


@pytest.mark.parametrize("model", FIELDS, ids=lambda model: model.__name__)
def test_a_reply_has_the_fields_that_are_listed_and_no_more(model: type[BaseModel]) -> None:
    assert set(model.model_fields) == FIELDS[model]


def save_parquet(path: Path) -> None:
    columns = {"text": [{SECRET: i} for i in range(20)], "label": ["no", "yes"] * 10, f"{SECRET}-hiv": [SECRET] * 20}
    parquet.write_table(pa.table(columns), path)


def cut_parquet(path: Path) -> None:
    save_parquet(path)
    path.write_bytes(path.read_bytes()[:-20] + SECRET.encode() * 5)


NEWS = f"N1\ta\tb\t{SECRET} one\t\nN2\ta\tb\t{SECRET} two\t\n"

WRONG: dict[str, tuple[str, str | bytes | Callable[[Path], None], dict[str, Any]]] = {
    "latin-1": ("x.csv", table().replace("text 7", "Müller").encode("latin-1"), LABELS),
    "no header": ("x.csv", rows(), LABELS),
    "label column of texts": ("x.csv", table(), {**LABELS, "label_column": "text"}),
    "label column of texts, no labels": ("x.csv", table(), {"label_column": "text"}),
    "no labels": ("x.csv", table(), {}),
    "one label is not named": ("x.csv", table() + f"{SECRET},{SECRET},1\n", LABELS),
    "labels that differ in case": (
        "x.csv",
        table().replace(",no,", f",{SECRET.lower()},"),
        {"labels": f"{SECRET},yes"},
    ),
    "a column that is not there": ("x.csv", table(), {**LABELS, "text_column": "body"}),
    "numbers": ("x.csv", table(), {"task": "regression", "labels": "1,5", "label_column": "label"}),
    "numbers, no range": ("x.csv", table(), {"task": "regression"}),
    "several labels": ("x.csv", table(), {"task": "multi-label", "label_column": "text", **LABELS}),
    "a workbook": ("x.csv", b"PK\x03\x04" + SECRET.encode() * 9, LABELS),
    "quotes": ("x.csv", table() + f'"{SECRET}', LABELS),
    "uneven": ("x.csv", table() + f"{SECRET},{SECRET},{SECRET},{SECRET}\n", LABELS),
    "zero bytes": ("x.csv", table().replace("text 3", "\0"), LABELS),
    "empty": ("x.csv", "", LABELS),
    "one row": ("x.csv", table(1), LABELS),
    "json keys": ("x.json", json.dumps([{SECRET: SECRET, "label": "no"}] * 20), LABELS),
    "broken json": ("x.json", f'[{{"text": "{SECRET}", ', LABELS),
    "mixed json": ("x.json", json.dumps([{"text": SECRET, "label": "no"}, {"text": [SECRET], "label": 1}]), LABELS),
    "parquet of structs": ("x.parquet", save_parquet, LABELS),
    "damaged parquet": ("x.parquet", cut_parquet, LABELS),
    "no file": ("", "", LABELS),
    "no kind": ("x.dat", table(), LABELS),
    "tags": (
        "x.tsv",
        f"{SECRET}\tO\n{SECRET}\tB-{SECRET}\n\n" * 9,
        {"task": "token-classification", "labels": "O,B-A,I-A"},
    ),
    "no tags": ("x.tsv", f"{SECRET} {SECRET}\n\n", {"task": "token-classification", "labels": "O,B-A,I-A"}),
    "a class of images": (f"{SECRET}-class/1.png", SECRET.encode(), {"task": "image-classification", **LABELS}),
    "damaged images": ("no/1.png", SECRET.encode(), {"task": "image-classification", **LABELS}),
    "news in latin-1": ("news.tsv", (NEWS + "N3\ta\tb\tMüller\t\n").encode("latin-1"), {"task": "news-recommendation"}),
    "uneven news": ("news.tsv", f"{NEWS}N3\ta\tb\t{SECRET}\t\t{SECRET}\n", {"task": "news-recommendation"}),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_with_data_is_told_without_them(
    run_config: Config, ward: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In one line of words that the server knows; all of it stands in the node's own log, under the id that is told."""
    name, content, changes = WRONG[kind]
    task = changes.get("task")
    folder = task in ("image-classification", "news-recommendation")
    place = ward / name
    place.parent.mkdir(exist_ok=True)
    if callable(content):
        content(place)
    elif name:
        place.write_bytes(content.encode() if isinstance(content, str) else content)
    if task == "news-recommendation":
        (ward / "behaviors.tsv").write_text("1\tU1\t11/11/2019 9:05:58 AM\tN1\tN1-1 N2-0\n")
    defaults = {"architecture": "separate"} | ({"dataset": "tweets", "partition": "iid"} if task else {})
    raw = run_config(**defaults, **changes)
    node = silo("north", ward if folder else place if name else ward / "gone.csv", ward / "state")
    reply = ask(raw, node, JoinRequest(lineage=LINEAGE))
    assert reply.has_error()
    text = said(reply)
    assert SECRET not in text.replace(f"{SECRET}, yes", "") and str(ward) not in text and len(text.splitlines()) == 1
    own_log = [record.getMessage() for record in caplog.records if record.name == "flwr"]
    if "its own log says more" in text:
        log_id = text.rpartition("under ")[2].strip(")")
        assert any(f"[{log_id}]" in line for line in own_log)


CELLS = st.builds("{}Zq7x{}".format, *2 * [st.text(st.sampled_from(list("a .0ß\"';|,\t\n\\é中")), max_size=3)])
TASKS = {
    "text-classification": ("no", "yes"),
    "multi-label": ("no", "yes"),
    "regression": ("1", "5"),
    "token-classification": ("O", "B-A", "I-A"),
}
"""With labels that fit."""


@st.composite
def silos(draw: st.DrawFn) -> tuple[str, bytes, dict[str, Any], dict[str, Any]]:
    """The name and bytes of a file, the run-config, and the owner's node config: all fits, or some of it does not."""
    mistakes = draw(st.sets(st.sampled_from(range(10)), max_size=draw(st.integers(0, 2))))

    def chosen(number: int, right: Any, *wrong: Any) -> Any:
        return draw(st.sampled_from(wrong)) if number in mistakes else right

    task = draw(st.sampled_from(list(TASKS)))
    unnamed, labels, names = draw(CELLS), TASKS[task], ("text", "label", "pair")
    header = draw(st.permutations([*names, unnamed]))
    named = chosen(0, labels, (*labels, f"{SECRET}-label"), ("a", "b"))
    lines = chosen(1, [header], [], [header, header])
    for number in range(draw(st.integers(3, 9))):
        lines.append([named[number % len(named)] if name == "label" else f"{draw(CELLS)}{number}" for name in header])
    separator = draw(st.sampled_from(",;\t"))
    quote = chosen(2, '"{}"', "{}", '"{}')
    text = "\n".join(separator.join(quote.format(cell.replace('"', '""')) for cell in line) for line in lines)
    content = text.encode(chosen(3, "utf-8", "utf-16", "cp1252"), errors="replace")
    config = {
        "task": task,
        "labels": ",".join(chosen(4, labels, ())),
        "text_column": chosen(5, "text", "label", "body"),
        "label_column": chosen(6, "label", "text", "class"),
        "encoding": chosen(7, "utf-8", "ascii", "utf-16"),
        "separator": chosen(8, "auto", "tab", "a"),
    }
    own = draw(st.sampled_from([{}, {"label-column": "label"}, {"text-column": unnamed}, {"encoding": "utf-8"}]))
    return chosen(9, "csv", "tsv", "json", "parquet", "txt"), content, config, own


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=silos(), trains=st.booleans())
def test_no_reply_holds_a_cell_a_column_or_a_path(
    run_config: Config, ward: Path, found: tuple[str, bytes, dict[str, Any], dict[str, Any]], trains: bool
) -> None:
    """Whatever stands in the file, and whatever the run-config makes of it."""
    suffix, content, changes, own = found
    path = ward / f"{SECRET}.{suffix}"
    path.write_bytes(content)
    raw = run_config(method="fedavg-student", local_steps=1, dataset="tweets", partition="natural", **changes)
    node = silo("north", path, ward / "state", **own)
    joined = ask(raw, node, JoinRequest(lineage=LINEAGE))
    event("refused" if joined.has_error() else "joined")
    for reply in (joined, ask(raw, node, first_round()) if trains else joined):
        assert SECRET not in said(reply) and str(ward) not in said(reply)


def test_a_node_that_takes_part_tells_no_path_and_no_host(run_config: Config, ward: Path) -> None:
    """Also one without a name: it is called by what stands for its path."""
    (ward / f"{SECRET}.csv").write_text(table())
    node = {"data-path": str(ward / f"{SECRET}.csv"), "state-dir": str(ward / "state"), "policy": "off"}
    raw = run_config(**LABELS)
    joined = ask(raw, node, JoinRequest(lineage=LINEAGE))
    info = from_records(JoinReply, joined.content)
    assert info.title == info.node and info.labels == ("no", "yes")
    trained = ask(raw, node, first_round())
    scored = ask(raw, node, EvaluateRequest(lineage=LINEAGE, round=0, refresh=Refresh.of("nothing", 0)))
    workers = {from_records(TrainReply, trained.content).worker, from_records(EvaluateReply, scored.content).worker}
    assert len(workers) == 1 and all(len(worker) == 8 and int(worker, 16) >= 0 for worker in workers)
    for reply in (joined, trained, scored):
        assert not reply.has_error() and SECRET not in said(reply) and "/" not in said(reply)


def test_what_a_disk_refuses_or_damages_is_told_without_its_path(
    run_config: Config, ward: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (ward / "x.csv").write_text(table())
    node, raw = silo("north", ward / "x.csv", ward / "state"), run_config(**LABELS)
    final = EvaluateRequest(lineage=LINEAGE, round=1, refresh=Refresh.of("nothing", 0))
    assert not ask(raw, node, first_round()).has_error()
    with short_files(100_000):
        full = ask(raw, node, final)
    damaged = next((ward / "state" / LINEAGE / "north").glob("*/private.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    refused, set_aside = (ask(raw, node, body) for body in (final, JoinRequest(lineage=LINEAGE)))
    assert refused.has_error() and "its state on disk was damaged" in said(refused)
    (note, *_) = from_records(JoinReply, set_aside.content).notes
    assert "its state on disk was damaged" in note and "set aside as north+damaged-1" in note
    for reply in (full, refused, set_aside):
        assert SECRET not in said(reply) and "/" not in said(reply)
    assert str(damaged) in caplog.text, "in the node's own log"


@pytest.mark.parametrize("model", ["absent", "here", "file"])
def test_no_path_of_a_run_config_tells_what_is_there(run_config: Config, ward: Path, model: str) -> None:
    """A teacher or student at a path: whether there is such a folder is not told."""
    (ward / "x.csv").write_text(table())
    (ward / "here").mkdir()
    (ward / "file").write_text(SECRET)
    node = silo("north", ward / "x.csv", ward / "state")
    for key in ("teacher", "student"):
        reply = ask(run_config(**LABELS, **{key: str(ward / model)}), node, JoinRequest(lineage=LINEAGE))
        text = said(reply).partition(" (its own log")[0]
        assert text == "node north: a model of this run, or its own teacher, is not usable there"


@pytest.mark.parametrize(
    "error", [ValueError(SECRET), OSError(2, "no", f"/{SECRET}"), KeyError(SECRET), pa.lib.ArrowInvalid(SECRET)]
)
def test_of_an_unknown_failure_its_type_and_an_id_are_told(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Reply:
        raise error

    message = Message(RecordDict(), dst_node_id=1, message_type="query")
    message.metadata.__dict__["_message_id"] = "m"
    text = said(answer(message, fail, owned=True))
    assert SECRET not in text and f"failed with {type(error).__name__}" in text
    log_id = text.rpartition("under ")[2]
    (record,) = [record for record in caplog.records if f"[{log_id}]" in record.getMessage()]
    assert record.exc_info and record.exc_info[1] is error and record.levelno == logging.ERROR


def test_owners_pin_columns_and_labels(run_config: Config, ward: Path) -> None:
    """A silo with other column names joins; neither the run nor the server learns them."""
    north, south = ward / "north.csv", ward / "south.csv"
    north.write_text(table())
    south.write_text(table().replace("text,label", "Befund,Diagnose").replace(",yes,", ",1,").replace(",no,", ",0,"))
    pinned = {
        "text-column": "Befund",
        "label-column": "Diagnose",
        "text-pair-column": "x",
        "labels": "0,1",
    }
    places = [silo("north", north, ward / "state"), silo("south", south, ward / "state", **pinned)]
    folder = run_server(LoopbackGrid(run_config(num_rounds=1, local_steps=1, **LABELS), places))
    found = history(folder)
    assert found["rounds"][0]["trained"] == 2 and not found["shared-head"]
    assert not any(word in (folder / "history.json").read_text() for word in ("Befund", "Diagnose", SECRET))


def test_labels_of_the_owners_policy_serve_where_a_run_names_none(run_config: Config, ward: Path) -> None:
    (ward / "x.csv").write_text(table())
    (ward / "policy.toml").write_text('[data]\nlabels = ["yes", "no"]\n[training]\nmin-examples = 1\n')
    node = silo("north", ward / "x.csv", ward / "state", policy=str(ward / "policy.toml"))
    info = from_records(JoinReply, ask(run_config(), node, JoinRequest(lineage=LINEAGE)).content)
    assert info.labels == ("yes", "no")


def test_a_wrong_label_column_of_a_simulation_is_asked_for(run_config: Config, ward: Path) -> None:
    """Ten labels, or a tenth of the rows, may come from data; nothing of more is told."""
    (ward / "x.csv").write_text(table())
    raw = run_config(dataset=f"csv:{ward / 'x.csv'}", label_column="text", min_train_nodes=1)
    with pytest.raises(
        RunError, match=r"40 different labels in 40 rows: is run-config key 'data.label-column' right"
    ) as caught:
        run_server(LoopbackGrid(raw, [{"partition-id": 0, "num-partitions": 1}]))
    assert f"{SECRET} text" not in str(caught.value)
