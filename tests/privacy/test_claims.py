"""Numbers and words that a node may choose as it likes: what they do to the run of the others."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict
from safetensors.torch import load_file
from support.federation import Config, history, nodes, student
from support.loopback import Fault, LoopbackGrid, run_server
from torch import Tensor
from typer.testing import CliRunner

from fedkd_flwr.cli.main import app
from fedkd_flwr.codec import EncodedUpdate
from fedkd_flwr.errors import ProtocolError
from fedkd_flwr.messages import EvaluateReply, TrainReply, TrainRequest
from fedkd_flwr.records import from_records
from fedkd_flwr.runtime.one_line import LONGEST

ALL = 2**53 - 1
"""Examples, more than any other node can have."""

LIAR = 102
Body = dict[str, Any]
EVIL = "\x1b[2J\nfedkd: finished [link=http://evil]x[/link]" + "x" * 10_000


def claiming(kind: str, change: Callable[[Body], object], node_id: int = LIAR) -> Fault:
    """A node that sends another body than it should."""

    def fault(message: Message, deliver: Callable[[], Message]) -> Message:
        reply = deliver()
        if message.metadata.dst_node_id == node_id and kind in (sent := reply.content.config_records["fedkd"]):
            body = json.loads(str(sent[kind]))
            change(body)
            forged: Mapping[str, Any] = {"fedkd": ConfigRecord({kind: json.dumps(body)})}
            reply = Message(RecordDict({**reply.content, **forged}), reply_to=message)
        return reply

    return fault


def test_a_node_that_claims_all_examples_counts_for_half(run_config: Config, tmp_path: Path) -> None:
    """The student moves by half of its update and half of the mean of the others."""
    grid = LoopbackGrid(run_config(num_rounds=1, codec="dense", bits=32), nodes(3))
    claim = claiming("JoinReply", lambda body: body.update(train_examples=ALL))
    sent: dict[str, dict[str, Tensor]] = {}

    def listen(message: Message, deliver: Callable[[], Message]) -> Message | None:
        reply = claim(message, deliver)
        if message.metadata.message_type == "train" and reply is not None:
            trained = from_records(TrainReply, reply.content)
            sent[trained.node] = EncodedUpdate.from_bytes(trained.update).decode()
            (path,) = (tmp_path / "state").glob(f"*/{trained.node}/0*/student.safetensors")
            sent["start"] = load_file(path)
        return reply

    grid.fault = listen
    folder = run_server(grid)
    first, second = (history(folder)["data"][f"partition-{i}"]["train-examples"] for i in range(2))
    for name, tensor in student(folder).items():
        start, one, other, liar = (sent[who][name] for who in ("start", *(f"partition-{i}" for i in range(3))))
        expected = start + 0.5 * (first * one + second * other) / (first + second) + 0.5 * liar
        assert torch.allclose(tensor, expected, atol=1e-6)


def test_a_node_cannot_choose_its_weight_with_its_update(run_config: Config) -> None:
    """Its update has no place for a number of examples."""
    grid = LoopbackGrid(run_config(num_rounds=1), nodes(3))
    grid.fault = claiming("TrainReply", lambda body: body.update(examples=ALL))
    (entry,) = history(run_server(grid))["rounds"]
    assert entry["trained"] == 2 and "examples" in entry["failed"]["partition-2"]


def test_a_node_cannot_decide_the_label_shares_of_all(run_config: Config) -> None:
    """Half of the mean is its own at most, and half is of the others."""

    def shares(name: str, fault: Fault | None) -> list[float]:
        grid = LoopbackGrid(run_config(num_rounds=1, logit_adjustment="always", run_name=name), nodes(3))
        grid.fault = fault
        run_server(grid)
        return next(
            list(from_records(TrainRequest, content).label_shares) for _, kind, content in grid.log if kind == "train"
        )

    def claim(body: Body) -> None:
        body.update(train_examples=ALL, label_shares=[1e-300] * len(body["label_shares"]))

    honest, found = shares("honest", None), shares("claimed", claiming("JoinReply", claim))
    assert all(share > 0.3 * one for share, one in zip(found, honest, strict=True))


def scores(accuracy: float, examples: int) -> Callable[[Body], None]:
    def change(body: Body) -> None:
        found = body["evaluation"]
        found["student"], found["examples"] = {"accuracy": accuracy}, examples

    return change


def test_a_node_that_claims_all_held_out_examples_counts_for_half(run_config: Config) -> None:
    grid = LoopbackGrid(run_config(num_rounds=1), nodes(3))
    grid.fault = claiming("EvaluateReply", scores(1.0, ALL))
    (entry,) = history(run_server(grid))["rounds"]
    others = [entry["nodes"][f"partition-{i}"]["student"]["accuracy"] for i in range(2)]
    assert entry["student"]["accuracy"] == pytest.approx(0.5 + sum(others) / 4)


@pytest.mark.parametrize(
    "change",
    [
        scores(1e300, 16),
        scores(float("nan"), 16),
        scores(0.5, -1),
        scores(0.5, 2**63),
        lambda body: body["evaluation"].update(student={EVIL: 1.0}),
        lambda body: body["evaluation"].update(student={f"s{i}": 1.0 for i in range(100)}),
        lambda body: body.update(seconds={"train": -1e300}),
        lambda body: body.update(notes=["x"] * 100),
        lambda body: body.update(worker="x" * (1 << 21)),
    ],
    ids=["huge", "nan", "negative", "inexact", "name", "many", "seconds", "notes", "long"],
)
def test_numbers_and_names_that_no_honest_node_sends_are_no_answer(change: Callable[[Body], object]) -> None:
    body: Body = {"node": "north", "version": 0, "seconds": {"train": 1.0}, "worker": "w", "notes": ["x"]}
    body["evaluation"] = {"student": {"accuracy": 0.5}, "teacher": None, "examples": 16}
    from_records(EvaluateReply, RecordDict({"fedkd": ConfigRecord({"EvaluateReply": json.dumps(body)})}))
    change(body)
    with pytest.raises(ProtocolError):
        from_records(EvaluateReply, RecordDict({"fedkd": ConfigRecord({"EvaluateReply": json.dumps(body)})}))


def test_a_score_of_no_examples_does_not_count(run_config: Config) -> None:
    grid = LoopbackGrid(run_config(num_rounds=1), nodes(2))
    unheard_of = {"student": {"unheard-of": 1.0}, "examples": 0}
    grid.fault = claiming("EvaluateReply", lambda body: body["evaluation"].update(unheard_of), 101)
    (entry,) = history(run_server(grid))["rounds"]
    assert entry["student"].keys() == {"accuracy", "macro-f1", "loss"}


def test_one_node_cannot_shut_the_others_out(run_config: Config) -> None:
    """It comes first and says that the data are shared out among seven."""
    grid = LoopbackGrid(run_config(num_rounds=1), nodes(3))
    grid.nodes = {LIAR: grid.nodes.pop(100), 100: grid.nodes.pop(101), 101: grid.nodes.pop(102)}
    grid.fault = claiming("JoinReply", lambda body: body.update(partitions=7, labels=["other"]))
    (entry,) = history(run_server(grid))["rounds"]
    assert entry["nodes"].keys() == {"partition-1", "partition-2"}


def test_what_a_node_says_is_no_escape_and_no_markup_in_history_and_show(run_config: Config) -> None:
    grid = LoopbackGrid(run_config(num_rounds=1), nodes(3))

    def change(body: Body) -> None:
        body.update({key: EVIL for key in ("title", "device", "worker") if key in body}, notes=[EVIL])

    grid.fault = claiming("JoinReply", change)
    folder = run_server(grid)
    title = history(folder)["data"]["partition-2"]["title"]
    assert title.isprintable() and len(title) <= LONGEST and title.startswith("[2J fedkd: finished")

    found = history(folder)
    found["config"]["federation.keep-best"], found["ended-early"] = "[link=http://evil]x[/link]", True
    (folder / "history.json").write_text(json.dumps(found))
    shown = CliRunner().invoke(app, ["show", str(folder)])
    assert shown.exit_code == 0 and "[link=http://evil]x[/link]" in shown.output
