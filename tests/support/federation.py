"""What tests ask of a federation and its run folder."""

import csv
import json
import resource
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message
from safetensors.torch import load_file

from fedkd_flwr.client.caches import Caches
from fedkd_flwr.client.dataset import Prepared
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.distillation import Single
from fedkd_flwr.messages import (
    EvaluateRequest,
    JoinRequest,
    Request,
    TrainReply,
    TrainRequest,
)
from fedkd_flwr.models.export import load_classifier
from fedkd_flwr.records import from_records, to_records
from fedkd_flwr.runtime.device import choose_device
from fedkd_flwr.tasks.evaluation import evaluate
from support.loopback import LoopbackGrid

Config = Callable[..., dict[str, Any]]


Change = Callable[[TrainReply], TrainReply]


def nodes(count: int) -> list[dict[str, Any]]:
    return [{"partition-id": i, "num-partitions": count} for i in range(count)]


def silo(name: str, data: str | Path, state_dir: Path, **own: Any) -> dict[str, Any]:
    """The node config of a node with data of its own, whose state lies where its owner says; without a policy."""
    return {"name": name, "data-path": str(data), "state-dir": str(state_dir), "policy": "off", **own}


def ask(raw: dict[str, Any], node: dict[str, Any], body: Request) -> Message:
    """What a node answers to one message."""
    grid = LoopbackGrid(raw, [node])
    kind = {JoinRequest: "query", TrainRequest: "train", EvaluateRequest: "evaluate"}[type(body)]
    message = Message(to_records(body), dst_node_id=100, message_type=kind)
    (reply,) = grid.send_and_receive([message])
    return reply


def history(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "history.json").read_text(), parse_constant=pytest.fail))


def student(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(max((folder / "checkpoints").iterdir()) / "student.safetensors")


def without_seconds(folder: Path) -> dict[str, Any]:
    """What a run found out, however long it took."""
    found = {key: history(folder)[key] for key in ("initial", "rounds", "labels", "sizes")}
    for entry in found["rounds"]:
        entry.pop("seconds")
    return found


def rows(folder: Path) -> list[dict[str, str]]:
    """Of its traffic.csv."""
    with (folder / "traffic.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def teachers(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """What the nodes of a run keep that never travels, by node."""
    state_dir = json.loads((folder / "config.json").read_text())["run.state-dir"]
    paths = sorted(Path(state_dir, history(folder)["lineage"]).glob("*/0*/private.safetensors"))
    return {path.parts[-3]: load_file(path) for path in paths}


def held_out(raw: dict[str, Any], node: dict[str, Any], folder: Path) -> dict[str, float]:
    """Scores of the classifier in a folder on a node's held-out rows."""
    prepared = Prepared(RunConfig.parse(raw), node, Caches())
    alone = Single(load_classifier(folder), shared=True)
    return evaluate(alone, prepared.task, prepared.examples.test, 16, choose_device("cpu", "fp32"))["student"]


def assert_same(real: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    assert real.keys() == expected.keys()
    assert all(torch.equal(real[name], expected[name]) for name in real)


def assert_same_models(real: Path, expected: Path) -> None:
    """The student and the nodes' teachers of two runs."""
    assert_same(student(real), student(expected))
    mine, theirs = teachers(real), teachers(expected)
    assert mine.keys() == theirs.keys() != set()
    for node in mine:
        assert_same(mine[node], theirs[node])


def refreshes(grid: LoopbackGrid, node_id: int) -> list[tuple[str, int, int]]:
    """Kind, version and number of payloads of every refresh that a node was sent."""
    found = []
    for destination, kind, content in grid.log:
        if destination == node_id and kind != "query":
            request = from_records(TrainRequest if kind == "train" else EvaluateRequest, content)
            found.append((request.refresh.kind, request.refresh.version, len(request.refresh.payloads)))
    return found


def round_of(message: Message, node_id: int) -> int | None:
    """Of a training message to the node."""
    if message.metadata.message_type != "train" or message.metadata.dst_node_id != node_id:
        return None
    return from_records(TrainRequest, message.content).round


def other_config(grid: LoopbackGrid, node_id: int, **changes: Any) -> Any:
    """A fault under which one node sees another run config."""
    raw = grid.run_config

    def fault(message: Message, deliver: Callable[[], Message]) -> Message:
        grid.run_config = raw | changes if message.metadata.dst_node_id == node_id else raw
        reply = deliver()
        grid.run_config = raw
        return reply

    return fault


def tamper(node_id: int, change: Change, rounds: set[int] | None = None) -> Any:
    """A fault that rewrites the training replies of one node."""

    def fault(message: Message, deliver: Callable[[], Message]) -> Message:
        reply = deliver()
        if message.metadata.dst_node_id != node_id or message.metadata.message_type != "train":
            return reply
        honest = from_records(TrainReply, reply.content)
        if rounds is not None and honest.round not in rounds:
            return reply
        return Message(to_records(change(honest)), reply_to=message)

    return fault


@contextmanager
def short_files(nbytes: int) -> Iterator[None]:
    """No file can be written that is longer, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
