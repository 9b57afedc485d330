"""No reply of a node with data of its own leaves before it is a line of its owner's egress.jsonl."""

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message
from support.federation import Config, ask, silo

from fedkd_flwr.codec import Uniform, UpdateCodec
from fedkd_flwr.errors import DataError
from fedkd_flwr.messages import (
    JoinReply,
    JoinRequest,
    Refresh,
    Reply,
    TrainReply,
    TrainRequest,
)
from fedkd_flwr.privacy.egress import EGRESS, UNSAID, leave, refuse
from fedkd_flwr.records import contents, to_records

LINEAGE, OTHER = 16 * "a", 16 * "b"
JOINED = JoinReply(
    node="north",
    partition=0,
    title="north",
    labels=("no", "yes"),
    train_examples=80,
    partitions=0,
    round=0,
    version=0,
    digest="0",
    encoder_digest="0",
    frozen_digest="0",
    teacher_bytes=0,
    device="cpu",
)
Silo = Callable[..., dict[str, Any]]


@pytest.fixture
def north(tmp_path: Path) -> Silo:
    """A node under a policy with these limits of runs; None: without."""

    def build(limits: dict[str, int] | None = None) -> dict[str, Any]:
        if limits is None:
            return silo("north", tmp_path / "x.csv", tmp_path / "state")
        text = "".join(f"{key} = {value}\n" for key, value in limits.items())
        (tmp_path / "policy.toml").write_text(f"[runs]\n{text}")
        return silo("north", tmp_path / "x.csv", tmp_path / "state", policy=str(tmp_path / "policy.toml"))

    return build


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "state" / EGRESS).read_text().splitlines()]


def join(node: dict[str, Any], lineage: str = LINEAGE) -> Message:
    message = Message(to_records(JoinRequest(lineage=lineage)), dst_node_id=1, message_type="query")
    return leave(message, node, JoinRequest, lambda request: JOINED)


def train(node: dict[str, Any], update: bytes = b"", lineage: str = LINEAGE) -> Message:
    request = TrainRequest(lineage=lineage, run="r", round=1, evaluate=False, refresh=Refresh.of("nothing", 0))

    def work(request: TrainRequest) -> Reply:
        return TrainReply(
            lineage=request.lineage, node="north", round=1, version=0, evaluation=None, losses={}, seconds={},
            worker="w", update=update,
        )  # fmt: skip

    return leave(Message(to_records(request), dst_node_id=1, message_type="train"), node, TrainRequest, work)


def test_every_reply_is_a_line_errors_too_and_without_a_policy(run_config: Config, north: Silo, tmp_path: Path) -> None:
    """Through the real app: the data are not there, the message is none, the run-config is wrong."""
    node = north()
    replies = [
        ask(run_config(labels="a,b"), node, JoinRequest(lineage=LINEAGE)),
        ask(run_config(labels="a,b"), node, TrainRequest(lineage=OTHER, run="r", round=2, evaluate=False,
                                                         refresh=Refresh.of("nothing", 0))),
        ask(run_config(num_rounds=0), node, JoinRequest(lineage=LINEAGE)),
        join(node),
        train(node, b"1234"),
    ]  # fmt: skip
    found = lines(tmp_path)
    assert [line["message"] for line in found] == ["join", "train", "join", "join", "train"]
    assert [(line["lineage"], line["round"]) for line in found[:2]] == [(LINEAGE, 0), (OTHER, 2)]
    for reply, line in zip(replies, found, strict=True):
        held = contents(reply)
        assert (line["bytes"], line["sha256"]) == (len(held), hashlib.sha256(held).hexdigest())
        assert line["node"] == "north" and ("error" in line) == reply.has_error()
    assert "labels" in found[3]["fields"] and "update" in found[4]["fields"] and found[0]["fields"] == ["reason"]
    assert "north" not in json.dumps([list(line["fields"]) for line in found])


def test_nothing_leaves_that_cannot_be_written(north: Silo, tmp_path: Path) -> None:
    """The work is not even begun."""
    (tmp_path / "state" / EGRESS).mkdir(parents=True)
    for reply in (join(north()), train(north({}), b"12")):
        assert reply.has_error() and reply.error.reason == UNSAID


def test_an_error_of_work_is_a_line(north: Silo, tmp_path: Path) -> None:
    def fail(request: JoinRequest) -> Reply:
        raise DataError("a secret path", outside="it is not there")

    message = Message(to_records(JoinRequest(lineage=LINEAGE)), dst_node_id=1, message_type="query")
    assert leave(message, north(), JoinRequest, fail).has_error()
    assert "secret" not in (tmp_path / "state" / EGRESS).read_text()


def test_runs_of_a_day_are_counted_from_the_lines_and_one_that_began_goes_on(north: Silo, tmp_path: Path) -> None:
    node = north({"max-runs-a-day": 1})
    assert not join(node).has_error()
    refused = [join(node, OTHER), train(node, lineage=OTHER)]
    assert all("'runs.max-runs-a-day'" in reply.error.reason for reply in refused)
    assert not train(node).has_error()
    path = tmp_path / "state" / EGRESS
    path.write_text(path.read_text().replace(str(lines(tmp_path)[0]["time"])[:4], "2020"))
    assert not join(node, OTHER).has_error(), "a day later"


def test_a_node_without_a_name_is_not_called_by_its_file(north: Silo, tmp_path: Path) -> None:
    node = {key: value for key, value in north({"max-runs-a-day": 1}).items() if key != "name"}
    node["data-path"] = str(tmp_path / "hiv-ward.csv")
    assert not join(node).has_error()
    reason = join(node, OTHER).error.reason
    assert "'runs.max-runs-a-day'" in reason and "hiv" not in reason


def test_answers_and_bytes_of_a_run_are_bounded(north: Silo, tmp_path: Path) -> None:
    node = north({"max-answers": 2})
    assert [train(node).has_error() for _ in range(3)] == [False, False, True]
    assert "'runs.max-answers'" in lines(tmp_path)[-1]["error"] and not join(node).has_error()
    sent = sum(line["bytes"] for line in lines(tmp_path))
    node = north({"max-bytes-a-run": sent + 100})
    assert "'runs.max-bytes-a-run'" in train(node).error.reason
    assert not train(node, lineage=OTHER).has_error() or sent + 100 < 400


def test_an_update_that_is_not_small_does_not_leave(north: Silo, tmp_path: Path) -> None:
    torch.manual_seed(0)
    update = UpdateCodec(allocation=Uniform()).encode({"a": torch.randn(64, 64)}).to_bytes()
    assert "'update.min-compression'" in train(north({}), update).error.reason
    assert lines(tmp_path)[-1]["bytes"] < 300
    assert not train(north(), update).has_error()


def test_a_line_that_a_killed_process_left_unfinished_is_passed_over(north: Silo, tmp_path: Path) -> None:
    node = north({"max-runs-a-day": 2})
    join(node)
    path = tmp_path / "state" / EGRESS
    path.write_bytes(path.read_bytes() + b'{"node": "nor')
    assert not join(node, OTHER).has_error()
    assert "'runs.max-runs-a-day'" in join(node, 16 * "c").error.reason
    whole, torn, *rest = path.read_text().splitlines()
    assert torn == '{"node": "nor' and len(rest) == 2 and all(map(json.loads, (whole, *rest)))


def test_lines_of_several_at_once_stay_whole_and_no_limit_is_passed(north: Silo, tmp_path: Path) -> None:
    node = north({"max-answers": 5})
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda _: train(node), range(12)))
    assert sum(not reply.has_error() for reply in replies) == 5
    assert len(lines(tmp_path)) == 12


def test_a_refusal_of_another_app_is_a_line(north: Silo, tmp_path: Path) -> None:
    message = Message(to_records(JoinRequest(lineage=LINEAGE)), dst_node_id=1, message_type="query")
    assert refuse(message, north(), "approved apps only").error.reason == "approved apps only"
    assert [(line["message"], line["error"]) for line in lines(tmp_path)] == [("query", "approved apps only")]
