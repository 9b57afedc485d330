import json
import logging
from typing import Any

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.loopback import LoopbackGrid

import server_app  # noqa: F401
from fedkd_flwr.errors import RunError
from fedkd_flwr.messages import EvaluateReply, JoinReply, TrainReply
from fedkd_flwr.records import from_records
from fedkd_flwr.runtime.one_line import LONGEST, LONGEST_LINE, one_line
from fedkd_flwr.server.client_registry import Membership

LINEAGE = "0123456789abcdef"
TEXTS = st.one_of(
    st.text(),
    st.sampled_from(
        [
            "\x1b[2J\x1b[31mred",
            "done\r\nfedkd: finished",
            "\u202egnp.exe",
            "x" * 100_000,
            "\n" * 100_000,
            "a\x85b\u2028c",
        ]
    ),
)
EVALUATION = {"student": {"accuracy": 0.5}, "teacher": None, "examples": 20}


def join_reply(text: str) -> dict[str, Any]:
    return {
        "node": "north", "partition": 0, "title": text, "labels": ["a", text], "train_examples": 1, "partitions": 0,
        "round": 0, "version": 0, "digest": "", "encoder_digest": "", "frozen_digest": "", "teacher_bytes": 1,
        "device": text, "notes": [text, text],
    }  # fmt: skip


def records(kind: str, body: dict[str, Any]) -> RecordDict:
    return RecordDict({"fedkd": ConfigRecord({kind: json.dumps(body)})})


@given(text=TEXTS, longest=st.integers(1, 50))
def test_a_line_is_printable_and_short_and_stays_as_it_is(text: str, longest: int) -> None:
    line = one_line(text, longest)
    assert line.isprintable() and len(line) <= longest and line == one_line(line, longest)
    assert one_line("two  words", 50) == "two words"


@given(text=TEXTS)
def test_whatever_a_node_says_for_people_arrives_as_a_line(text: str) -> None:
    """Labels, which must stay as they are, apart: lines of the log that name them are cut as a whole."""
    work = {"node": "north", "version": 0, "seconds": {}, "worker": text, "notes": [text]}
    train = {"lineage": LINEAGE, "round": 1, "evaluation": None, "losses": {}}
    for kind, body in (
        (JoinReply, join_reply(text)),
        (TrainReply, work | train),
        (EvaluateReply, work | {"evaluation": EVALUATION, "not_exported": text}),
    ):
        found = from_records(kind, records(kind.__name__, body)).model_dump(exclude={"labels"})
        lines = [value for value in found.values() if isinstance(value, str)] + list(found["notes"])
        assert all(line.isprintable() and len(line) <= LONGEST for line in lines)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "flwr")
    return caplog


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS, way=st.sampled_from(["joins", "is refused", "answers with an error", "sends another field"]))
def test_whatever_a_node_sends_each_line_of_the_log_is_one_line(
    text: str, way: str, lines: pytest.LogCaptureFixture
) -> None:
    lines.clear()
    grid = LoopbackGrid({}, [{}])

    def reply(message: Message, deliver: object) -> Message:
        if way == "answers with an error":
            return Message(Error(code=2, reason=text), reply_to=message)
        extra = {text: 1} if way == "sends another field" else {}
        return Message(records("JoinReply", join_reply(text) | extra), reply_to=message)

    grid.fault = reply

    def admit(info: JoinReply, newcomers: object) -> int:
        logging.getLogger("flwr").warning("fedkd: labels: %s", ", ".join(info.labels))
        return 0

    membership = Membership(LINEAGE, admit, 1 if way == "joins" else 2, 0, 60)
    if way == "joins":
        assert [member.info.node for member in membership.present(grid)] == ["north"]
    else:
        with pytest.raises(RunError) as failed:
            membership.present(grid)
        logging.getLogger("flwr").error("ServerApp raised an exception", exc_info=failed.value)
    assert lines.messages
    assert all(line.isprintable() and len(line) <= LONGEST_LINE for line in lines.messages), lines.messages
