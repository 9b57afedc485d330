"""The one exit of a node with data of its own: no reply leaves before it is a line of STATE_DIR/egress.jsonl.

Nothing removes a line. What a policy allows of runs a day, answers and bytes is counted from them, so it holds for all
processes of a node and after a restart.
"""

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, TypeVar

from flwr.app import Message

from fedkd_flwr.config.node_config import STATE_DIR, is_owned
from fedkd_flwr.config.policy import Policy, policy_of
from fedkd_flwr.errors import ProtocolError
from fedkd_flwr.messages import (
    EvaluateRequest,
    JoinRequest,
    Reply,
    TrainReply,
    TrainRequest,
)
from fedkd_flwr.names import fitting
from fedkd_flwr.privacy.enforcement import require_small
from fedkd_flwr.records import answer, contents, fields, from_records, refusal
from fedkd_flwr.runtime.disk import flush

EGRESS = "egress.jsonl"
UNSAID = "nothing may leave this node: its owner has to look at its egress.jsonl"
"""The one reply that is no line: that none can be written."""

_ANSWERS = {"train", "evaluate"}
_DAY = timedelta(days=1)
_log = logging.getLogger("flwr")
_Request = TypeVar("_Request", JoinRequest, TrainRequest, EvaluateRequest)


@dataclass(frozen=True)
class _Asked:
    """Whom a message asks for what; lineage, run and round are empty where it cannot be read."""

    node: str
    kind: str
    lineage: str = ""
    run: str = ""
    round: int = 0


def leave(
    message: Message, node_config: Mapping[str, Any], kind: type[_Request], work: Callable[[_Request], Reply]
) -> Message:
    """The reply to a message, written down before it is returned where the node has data of its own.

    Args:
        message: of a server.
        node_config: of the node.
        kind: what the message must be.
        work: makes the answer to it.

    Returns:
        The answer, or in words why there is none, also where the owner's policy keeps it back.
    """

    def reply() -> Reply:
        return work(from_records(kind, message.content))

    if not is_owned(node_config):
        return answer(message, reply)
    asked, path = _asked(message, node_config, kind), _path(node_config)
    try:
        with _opened(path) as file:
            before = _lines(file)

        def bounded() -> Reply:
            policy = policy_of(node_config)
            _require_room(policy, before, asked, 0)
            made = reply()
            if isinstance(made, TrainReply):
                require_small(policy, made.update)
            return made

        made = answer(message, bounded, owned=True)
        with _opened(path) as file:
            if not made.has_error():
                try:
                    _require_room(policy_of(node_config), _lines(file), asked, len(contents(made)))
                except ProtocolError as error:
                    made = refusal(message, str(error))
            _append(file, asked, made)
        return made
    except Exception:
        _log.exception("fedkd: %s cannot be written, so nothing leaves", path)
        return refusal(message, UNSAID)


def refuse(message: Message, node_config: Mapping[str, Any], reason: str) -> Message:
    """The reply that only says why there is no other, written down where the node has data of its own."""
    made = refusal(message, reason)
    if not is_owned(node_config):
        return made
    try:
        with _opened(_path(node_config)) as file:
            _append(file, _Asked(_name(node_config), message.metadata.message_type), made)
        return made
    except Exception:
        _log.exception("fedkd: %s cannot be written, so nothing leaves", _path(node_config))
        return refusal(message, UNSAID)


def _path(node_config: Mapping[str, Any]) -> Path:
    return Path(str(node_config.get("state-dir", STATE_DIR))).absolute() / EGRESS


def _name(node_config: Mapping[str, Any]) -> str:
    return str(node_config.get("name") or fitting(Path(str(node_config["data-path"])).stem))


def _asked(message: Message, node_config: Mapping[str, Any], kind: type[_Request]) -> _Asked:
    node, name = _name(node_config), kind.__name__.removesuffix("Request").lower()
    try:
        request = from_records(kind, message.content)
    except Exception:  # whatever it is, the answer says so
        return _Asked(node, name)
    return _Asked(node, name, request.lineage, getattr(request, "run", ""), getattr(request, "round", 0))


def _require_room(policy: Policy | None, lines: Sequence[Mapping[str, Any]], asked: _Asked, nbytes: int) -> None:
    """Whether a policy lets a reply of so many bytes leave after these.

    Raises:
        ProtocolError: it does not; names the policy key.
    """
    if policy is None:
        return
    runs, begun = policy.runs, dict[str, datetime]()
    answers = sent = 0
    for line in lines:
        if line.get("node") != asked.node:
            continue
        sent += line["bytes"] if line["lineage"] == asked.lineage else 0
        if "error" not in line:
            begun.setdefault(line["lineage"], datetime.fromisoformat(line["time"]))
            answers += line["lineage"] == asked.lineage and line["message"] in _ANSWERS
    today = sum(datetime.now(UTC) - time < _DAY for time in begun.values())
    if asked.lineage not in begun and today >= runs.max_runs_a_day:
        raise ProtocolError(
            f"it has begun {today} runs within 24 hours: policy key 'runs.max-runs-a-day' allows no more"
        )
    if asked.kind in _ANSWERS and answers >= runs.max_answers:
        raise ProtocolError(f"this run has had {answers} answers: policy key 'runs.max-answers' allows no more")
    if sent + nbytes > runs.max_bytes_a_run:
        raise ProtocolError(
            f"with this answer {sent + nbytes} bytes would have left for this run: policy key 'runs.max-bytes-a-run' "
            f"allows {runs.max_bytes_a_run}"
        )


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The file of lines, ours alone as far as this file system has locks.

    Raises:
        OSError: it cannot be made or opened.
    """
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b") as file:  # noqa: PTH123
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        if new:
            flush(path.parent)
        yield file


def _lines(file: IO[bytes]) -> list[dict[str, Any]]:
    """All lines; one that a killed process left behind unfinished was of a reply that did not leave."""
    found = []
    file.seek(0)
    for line in file:
        with suppress(ValueError):
            found.append(json.loads(line))
    return [line for line in found if isinstance(line, dict)]


def _append(file: IO[bytes], asked: _Asked, reply: Message) -> None:
    """Write the line of a reply and wait until it is on the disk.

    Raises:
        OSError: the disk refuses.
    """
    held = contents(reply)
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "node": asked.node,
        "message": asked.kind,
        "lineage": asked.lineage,
        "run": asked.run,
        "round": asked.round,
        "bytes": len(held),
        "sha256": hashlib.sha256(held).hexdigest(),
        "fields": fields(reply),
        **({"error": reply.error.reason} if reply.has_error() else {}),
    }
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 1))
    torn = file.read(1) not in (b"", b"\n")
    file.write(b"\n" * torn + json.dumps(line).encode() + b"\n")
    file.flush()
    os.fsync(file.fileno())
