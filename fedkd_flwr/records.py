"""Flower's records of the messages; the only module that knows what these hold.

Every message is one JSON body in a ConfigRecord and, where tensors travel, one uint8 Array: the codec's bytes.
"""

import json
from collections.abc import Callable, Iterable
from typing import TypeVar

from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from pydantic import ValidationError

from fedkd_flwr.errors import ProtocolError
from fedkd_flwr.messages import (
    EvaluateReply,
    EvaluateRequest,
    JoinReply,
    JoinRequest,
    Reply,
    Request,
    TrainReply,
    TrainRequest,
)
from fedkd_flwr.runtime.one_line import one_line
from fedkd_flwr.told import told

_BODY, _PAYLOAD, _KEY, _STYPE = "fedkd", "payload", "bytes", "fedkd.codec"
REFUSED = 100
"""Error code of a reply whose node says in words why it could not answer."""

_LONGEST_BODY = 1 << 20
"""Characters of a message's JSON: a thousand labels with long names are a tenth of it."""

_Received = TypeVar("_Received", JoinRequest, TrainRequest, EvaluateRequest, JoinReply, TrainReply, EvaluateReply)


def to_records(body: Request | Reply) -> RecordDict:
    """The records of a message."""
    records = RecordDict({_BODY: ConfigRecord({type(body).__name__: body.model_dump_json()})})
    payload = _payload(body)
    if payload:
        array = Array(dtype="uint8", shape=(len(payload),), stype=_STYPE, data=payload)
        records[_PAYLOAD] = ArrayRecord({_KEY: array})
    return records


def from_records(kind: type[_Received], records: RecordDict) -> _Received:
    """The body of a message that must be a `kind`.

    Raises:
        ProtocolError: the records are not such a message; says what is wrong with them.
    """
    try:
        text = str(records.config_records[_BODY][kind.__name__])
        if len(text) > _LONGEST_BODY:
            raise ProtocolError(f"the message has {len(text)} characters, {_LONGEST_BODY} at most are read")
        body = kind.model_validate_json(text)
        array = records.array_records[_PAYLOAD][_KEY] if _PAYLOAD in records else None
    except KeyError as error:
        raise ProtocolError(f"the message is no {kind.__name__}: record {error} is missing") from None
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        raise ProtocolError(f"{kind.__name__} field {field!r}: {problem['msg']}") from None
    return _with_payload(body, b"" if array is None else array.data)


def pack(reply: TrainReply) -> bytes:
    """A reply as bytes, for a node to keep."""
    return reply.model_dump_json().encode() + b"\n" + reply.update


def unpack(kept: bytes) -> TrainReply:
    """The reply that `pack` made into bytes."""
    body, _, update = kept.partition(b"\n")
    return TrainReply.model_validate_json(body).model_copy(update={"update": update})


def collect(
    messages: Iterable[Message], replies: Iterable[Message], kind: type[_Received]
) -> tuple[dict[int, _Received], dict[int, str]]:
    """What came back for `messages`, by the id of the node that was asked.

    Returns:
        The first reply of each node that is a `kind`, and for every other node why it has none, in words.
    """
    asked = {m.metadata.message_id: m.metadata.dst_node_id for m in messages}
    answers: dict[int, _Received] = {}
    failures = dict.fromkeys(asked.values(), "no answer in time, or the node could not be reached")
    for reply in replies:
        node_id = asked[reply.metadata.reply_to_message_id]
        if node_id in answers:
            continue
        if reply.has_error():
            failures[node_id] = one_line(reply.error.reason or f"Flower error {reply.error.code}")
            continue
        try:
            answers[node_id] = from_records(kind, reply.content)
            del failures[node_id]
        except ProtocolError as error:
            failures[node_id] = one_line(str(error))
    return answers, failures


def answer(message: Message, reply: Callable[[], Reply], owned: bool = False) -> Message:
    """The reply to `message`, whatever happens: a handler that returns none would wedge its SuperNode.

    Args:
        message: what was asked.
        reply: makes the answer.
        owned: whether the node has data of its own, which then tells of errors as `told` says.
    """
    try:
        return Message(to_records(reply()), reply_to=message)
    except Exception as error:
        return refusal(message, told(error, owned))


def refusal(message: Message, reason: str) -> Message:
    """The reply to `message` that says why there is no other."""
    return Message(Error(code=REFUSED, reason=reason), reply_to=message)


def contents(reply: Message) -> bytes:
    """All that a reply holds: the text of its body and its payload, or the reason of an error."""
    if reply.has_error():
        return (reply.error.reason or "").encode()
    records = reply.content
    texts = [str(text).encode() for record in records.config_records.values() for text in record.values()]
    arrays = [array.data for record in records.array_records.values() for array in record.values()]
    return b"\n".join([*texts, *arrays])


def fields(reply: Message) -> list[str]:
    """The names of what a reply holds."""
    if reply.has_error():
        return ["reason"]
    records = reply.content
    texts = [str(text) for record in records.config_records.values() for text in record.values()]
    return [name for text in texts for name in json.loads(text)] + ["update"] * len(records.array_records)


def _payload(body: Request | Reply) -> bytes:
    match body:
        case TrainReply():
            return body.update
        case TrainRequest() | EvaluateRequest():
            return b"".join(body.refresh.payloads)
        case _:
            return b""


def _with_payload(body: _Received, payload: bytes) -> _Received:
    match body:
        case TrainReply():
            return body.model_copy(update={"update": payload})
        case TrainRequest() | EvaluateRequest():
            return body.model_copy(update={"refresh": body.refresh.with_payloads(payload)})
        case _:
            return body
