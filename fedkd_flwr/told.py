"""What a node tells a server of an error. The rest stays in the node's own log, where an id finds it."""

import logging
import secrets

from fedkd_flwr.errors import FedKDError, in_full

_log = logging.getLogger("flwr")


def told(error: Exception, owned: bool) -> str:
    """What a reply may say of an error; writes to the node's own log what it may not.

    Of an error that is none of ours only the type is told: its text may quote data, or paths.

    Args:
        error: what arose.
        owned: whether the node has data of its own; others are simulated, and tell what our own errors say.
    """
    if isinstance(error, FedKDError):
        text, whole = error.outside if owned else str(error), in_full(error)
        if text == whole:
            return text
        log_id = secrets.token_hex(4)
        _log.error("fedkd: [%s] %s", log_id, whole)
        return f"{text} (its own log says more, under {log_id})" if owned else text
    log_id = secrets.token_hex(4)
    _log.error("fedkd: [%s] the node failed", log_id, exc_info=error)
    where = f", under {log_id}" if owned else ""
    return f"the node failed with {type(error).__name__}: its own log says more{where}"
