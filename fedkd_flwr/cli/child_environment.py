"""The environment of the processes that a launch starts, whatever the user's own is like."""

import os
import sysconfig
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from fedkd_flwr.cli.processes import MARKER
from fedkd_flwr.live.channel import EVENTS
from fedkd_flwr.tracking.environment import as_variables

EVENTS_FILE = "events.jsonl"
"""Name of the file in the folder of a launch into which its processes write what they tell."""

SCRIPTS = Path(sysconfig.get_path("scripts"))
"""Where Flower's commands are installed."""

_LOOPBACK = "127.0.0.1,localhost,::1"


def child_environment(home: Path) -> dict[str, str]:
    """The user's environment, so changed that Flower and Ray keep to this launch and its folder `home`.

    A proxy of the user's stays, but never stands between processes on this machine.
    """
    inherited = {
        key: value for key, value in os.environ.items() if key != "RAY_ADDRESS" and not _is_useless_proxy(key, value)
    }
    return {
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore::FutureWarning:ray._private.worker",
        **inherited,
        **_no_proxy_here(inherited),
        **as_variables(),
        MARKER: str(home),
        EVENTS: str(home / EVENTS_FILE),
        "PATH": os.pathsep.join([str(SCRIPTS), os.environ.get("PATH", os.defpath)]),
        "PYTHONUNBUFFERED": "1",
        "RAY_TMPDIR": str(home),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
    }


def _is_useless_proxy(key: str, value: str) -> bool:
    """Whether a variable names a SOCKS proxy that nothing here can use; Flower's client would refuse to start."""
    return key.lower().endswith("_proxy") and value.startswith("socks") and find_spec("socksio") is None


def _no_proxy_here(environment: Mapping[str, str]) -> dict[str, str]:
    """Both spellings of the variable that keeps hosts from proxies, with this machine among those of the user.

    Libraries differ in which spelling they read; of several the one in small letters counts, as in Python's own.
    """
    spellings = sorted(key for key in environment if key.lower() == "no_proxy")
    user = environment[spellings[-1]] if spellings else ""
    hosts = user if user.strip() == "*" else ",".join(filter(None, (user.strip(" ,"), _LOOPBACK)))
    return dict.fromkeys([*spellings, "no_proxy", "NO_PROXY"], hosts)
