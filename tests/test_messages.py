from collections.abc import Callable

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedkd_flwr.errors import DataError, ProtocolError
from fedkd_flwr.messages import (
    EvaluateRequest,
    JoinReply,
    JoinRequest,
    Refresh,
    Reply,
    TrainReply,
    TrainRequest,
)
from fedkd_flwr.records import answer, collect, from_records, pack, to_records, unpack

LINEAGE = "0123456789abcdef"
PAYLOADS = st.lists(st.binary(max_size=20), max_size=4)


def reply(update: bytes = b"update") -> TrainReply:
    return TrainReply(
        lineage=LINEAGE,
        node="n",
        round=1,
        version=0,
        evaluation=None,
        losses={"teacher": 0.5},
        distillation={"student-kl": 1.0},
        seconds={},
        worker="w",
        update=update,
    )


def message(kind: str = "train", node: int = 7, message_id: str = "m") -> Message:
    made = Message(to_records(JoinRequest(lineage=LINEAGE)), dst_node_id=node, message_type=kind)
    made.metadata.__dict__["_message_id"] = message_id
    return made


@given(payloads=PAYLOADS)
def test_a_request_arrives_as_it_was_sent(payloads: list[bytes]) -> None:
    refresh = Refresh.of("updates", 5, *payloads)
    request = TrainRequest(lineage=LINEAGE, round=6, evaluate=True, refresh=refresh)
    records = to_records(request)
    assert from_records(TrainRequest, records) == request
    assert refresh.nbytes == sum(map(len, payloads))
    arrays = [array for record in records.array_records.values() for array in record.values()]
    assert [array.data for array in arrays] == ([b"".join(payloads)] if refresh.nbytes else [])


@given(update=st.binary(max_size=50))
def test_a_reply_arrives_and_is_kept_as_it_was(update: bytes) -> None:
    sent = reply(update)
    assert from_records(TrainReply, to_records(sent)) == sent == unpack(pack(sent))


def test_the_array_is_the_update_and_nothing_else() -> None:
    (record,) = to_records(reply(b"abc")).array_records.values()
    (array,) = record.values()
    assert (array.dtype, array.shape, array.data) == ("uint8", (3,), b"abc")


def drop_body(records: RecordDict) -> None:
    del records["fedkd"]


def other_body(records: RecordDict) -> None:
    records["fedkd"] = ConfigRecord({"TrainRequest": '{"lineage": 5}'})


def no_json(records: RecordDict) -> None:
    records["fedkd"] = ConfigRecord({"TrainRequest": "{"})


def short_payload(records: RecordDict) -> None:
    array = Array(dtype="uint8", shape=(1,), stype="fedkd.codec", data=b"x")
    records["payload"] = ArrayRecord({"bytes": array})


def no_array(records: RecordDict) -> None:
    records["payload"] = ArrayRecord()


@pytest.mark.parametrize("damage", [drop_body, other_body, no_json, short_payload, no_array])
def test_anything_else_is_one_protocol_error(damage: Callable[[RecordDict], None]) -> None:
    refresh = Refresh.of("updates", 1, b"abc")
    records = to_records(TrainRequest(lineage=LINEAGE, round=1, evaluate=False, refresh=refresh))
    damage(records)
    with pytest.raises(ProtocolError) as caught:
        from_records(TrainRequest, records)
    assert "\n" not in str(caught.value)


def test_numbers_that_are_not_finite_never_pass() -> None:
    records = to_records(reply())
    body = str(records.config_records["fedkd"]["TrainReply"]).replace("0.5", "NaN")
    records["fedkd"] = ConfigRecord({"TrainReply": body})
    with pytest.raises(ProtocolError, match="losses"):
        from_records(TrainReply, records)


def test_a_message_of_another_kind_is_named() -> None:
    with pytest.raises(ProtocolError, match="no EvaluateRequest"):
        from_records(EvaluateRequest, to_records(JoinRequest(lineage=LINEAGE)))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DataError("a.csv: row 3 has no label"), "a.csv: row 3 has no label"),
        (DataError("a.csv: row 3 has no label", "secret"), "a.csv: row 3 has no label"),
        (KeyError("secret"), "the node failed with KeyError: its own log says more"),
        (StopIteration(), "the node failed with StopIteration: its own log says more"),
    ],
)
def test_a_handler_that_fails_replies_with_a_reason_that_quotes_no_data(
    error: Exception, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What may quote them stays in the node's own log."""

    def fail() -> Reply:
        raise error

    replied = answer(message(), fail)
    assert replied.has_error() and replied.error.reason == reason
    assert replied.metadata.reply_to_message_id == "m"
    assert ("secret" in caplog.text) == ("secret" in repr(error) or getattr(error, "detail", "") == "secret")


def test_every_node_that_was_asked_has_an_answer_or_a_reason() -> None:
    asked = [message(node=node, message_id=f"m{node}") for node in (1, 2, 3, 4)]
    good = JoinReply(
        node="n", partition=0, title="t", labels=("a", "b"), train_examples=1, partitions=0, round=0, version=0,
        digest="d", encoder_digest="e", frozen_digest="f", teacher_bytes=1, device="cpu",
    )  # fmt: skip
    replies = [
        Message(to_records(good), reply_to=asked[0]),
        Message(Error(code=5, reason="gone"), reply_to=asked[1]),
        Message(to_records(reply()), reply_to=asked[2]),
        Message(to_records(good.model_copy(update={"title": "twice"})), reply_to=asked[0]),
    ]
    answers, failures = collect(asked, replies, JoinReply)
    assert answers == {1: good}
    assert failures.keys() == {2, 3, 4}
    assert failures[2] == "gone" and "no JoinReply" in failures[3] and "no answer in time" in failures[4]


@given(lineage=st.one_of(st.text(), st.sampled_from(["../evil", "examples", LINEAGE + "\n", LINEAGE.upper()])))
def test_a_lineage_that_is_none_is_refused_where_it_arrives(lineage: str) -> None:
    body = JoinRequest(lineage=LINEAGE).model_copy(update={"lineage": lineage})
    with pytest.raises(ProtocolError, match=r"^JoinRequest field 'lineage': [^\n]*$"):
        from_records(JoinRequest, to_records(body))
