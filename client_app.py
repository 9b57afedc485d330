"""What a node does with a message of the server."""

from collections.abc import Callable

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

import fedkd_flwr.libraries  # noqa: F401
from fedkd_flwr.config import RunConfig
from fedkd_flwr.node import Node
from fedkd_flwr.privacy import is_owned
from fedkd_flwr.protocol import EvaluateRequest, JoinRequest, Reply, TrainRequest, answer, from_records

app = ClientApp()


def _answer(message: Message, context: Context, reply: Callable[[Node], Reply]) -> Message:
    def by_node() -> Reply:
        return reply(Node(RunConfig.parse(context.run_config), context.node_config))

    return answer(message, by_node, is_owned(context.node_config))


@app.query()
def join(message: Message, context: Context) -> Message:
    """Say who this node is and which version of the student it holds."""
    return _answer(message, context, lambda node: node.join(from_records(JoinRequest, message.content)))


@app.train()
def train(message: Message, context: Context) -> Message:
    """Bring the student up to date, train teacher and student together, reply with the student's update."""
    return _answer(message, context, lambda node: node.train(from_records(TrainRequest, message.content)))


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Bring the student up to date, score it and the teacher on the node's held-out examples."""
    return _answer(message, context, lambda node: node.evaluate(from_records(EvaluateRequest, message.content)))
