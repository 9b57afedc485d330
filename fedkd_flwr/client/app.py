"""What a node does with a message of the server."""

from collections.abc import Callable
from typing import TypeVar

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

import fedkd_flwr.runtime.libraries  # noqa: F401
from fedkd_flwr.client.caches import Caches
from fedkd_flwr.client.client import Client
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.live.channel import tell
from fedkd_flwr.live.events import Work, Working
from fedkd_flwr.messages import (
    EvaluateRequest,
    JoinRequest,
    Reply,
    TrainRequest,
)
from fedkd_flwr.privacy.egress import leave
from fedkd_flwr.runtime.device import set_threads

app = ClientApp()
caches = Caches()
"""What this process keeps between messages."""

_WORK: dict[type, Work] = {JoinRequest: "join", TrainRequest: "train", EvaluateRequest: "evaluate"}
_Request = TypeVar("_Request", JoinRequest, TrainRequest, EvaluateRequest)


def _answer(
    message: Message, context: Context, kind: type[_Request], reply: Callable[[Client, _Request], Reply]
) -> Message:
    def by_client(request: _Request) -> Reply:
        client = Client(RunConfig.parse(context.run_config), context.node_config, caches)
        set_threads(client.threads)
        tell(Working(node=client.name, work=_WORK[kind]))
        return reply(client, request)

    return leave(message, context.node_config, kind, by_client)


@app.query()
def join(message: Message, context: Context) -> Message:
    """Say who this node is and which version of the student it holds."""
    return _answer(message, context, JoinRequest, Client.join)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Bring the student up to date, train teacher and student together, reply with the student's update."""
    return _answer(message, context, TrainRequest, Client.train)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Bring the student up to date, score it and the teacher on the node's held-out examples."""
    return _answer(message, context, EvaluateRequest, Client.evaluate)
