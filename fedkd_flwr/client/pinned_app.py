"""What a SuperNode starts for a message in place of `flwr-clientapp`: the installed app, for a run of an approved one.

The app of a run comes as an archive from the SuperLink. Here its bytes are hashed and dropped: they are not unpacked,
no folder of theirs is on the path of imports, and none of what they depend on is installed. Where the owner has
approved the hash, the ClientApp of this package answers the message; otherwise the answer is a refusal.
"""

import hashlib
import importlib
from collections.abc import Callable
from logging import getLogger
from pathlib import Path

from flwr.app import Context, Message
from flwr.supernode.cli.flwr_clientapp import flwr_clientapp

from fedkd_flwr.errors import StateError
from fedkd_flwr.privacy.approved import approved

log = getLogger("flwr")

Handler = Callable[[Message, Context], Message]

_RUNTIME = "flwr.supernode.runtime.run_clientapp"


class Gate:
    """Stands where Flower's process would unpack an app, install what it needs, and load it."""

    def __init__(self, place: Path) -> None:
        """Let pass what is approved in the file at `place`."""
        self._place = place
        self._app = ""

    def receive(self, archive: bytes, **_: object) -> None:
        """Take the bytes of a run's app; only their hash is kept."""
        self._app = hashlib.sha256(archive).hexdigest()

    def load(self, *_: object) -> Handler:
        """What answers the message; whatever the run says of its app's name, version and hash does not count."""
        try:
            known = approved(self._place)
        except StateError as error:
            log.error("fedkd: no app is run: %s", error)
            return _refusing("cannot read which apps are approved: its own log says more")
        if self._app not in known:
            return _refusing(f"runs only approved apps: its owner may `fedkd silo approve {self._app}`")
        try:
            return _installed()
        except Exception:
            log.exception("fedkd: the installed app cannot be loaded")
            return _refusing("cannot load its installed app: its own log says more")


def main(place: str) -> None:
    """Run the process that Flower asks for on the command line.

    Args:
        place: of the file with the hashes of approved apps.
    """
    gate = Gate(Path(place))
    runtime = importlib.import_module(_RUNTIME)
    for name, ours in (
        ("install_from_fab", gate.receive),
        ("install_app_dependencies", lambda *_, **__: None),
        ("get_load_client_app_fn", lambda **_: gate.load),
    ):
        if not hasattr(runtime, name):
            raise SystemExit(f"fedkd: no app is run: this version of Flower has no {_RUNTIME}.{name}")
        setattr(runtime, name, ours)
    flwr_clientapp()


def _installed() -> Handler:
    from fedkd_flwr.client.app import app

    return app


def _refusing(reason: str) -> Handler:
    def refuse(message: Message, context: Context) -> Message:
        from fedkd_flwr.privacy.egress import refuse as written

        line = f"node {context.node_config.get('name', context.node_id)} {reason}"
        log.error("fedkd: %s", line)
        return written(message, context.node_config, line)

    return refuse
