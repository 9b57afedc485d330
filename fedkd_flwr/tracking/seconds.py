"""Where the time of rounds went: what nodes and server counted, put together and into words."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedkd_flwr.messages import EvaluateReply, TrainReply


def by_part(replies: "Iterable[TrainReply | EvaluateReply]", wall: float, server: float) -> dict[str, float]:
    """Where a round's time went; see `RoundEntry.seconds`."""
    parts: dict[str, float] = defaultdict(float)
    workers: dict[str, float] = defaultdict(float)
    for reply in replies:
        workers[reply.worker] += sum(reply.seconds.values())
        for part, seconds in reply.seconds.items():
            parts[part] += seconds
    busiest = max(workers.values(), default=0.0)
    return {"round": wall, **parts, "server": server, "flower": max(0.0, wall - busiest - server)}


def in_words(rounds: Iterable[Mapping[str, float]]) -> str:
    """What `by_part` found, over all rounds; empty where nothing was counted."""
    counted = [seconds for seconds in rounds if seconds]
    if not counted:
        return ""
    total: Counter[str] = Counter()
    for seconds in counted:
        total.update(seconds)
    wall, server, flower = (total.pop(part) for part in ("round", "server", "flower"))
    parts = ", ".join(f"{part} {s:.1f}" for part, s in total.most_common())
    words = (
        f"{wall:.1f} s in {len(counted)} rounds: server {server:.1f}, waiting for Flower {flower:.1f}, the nodes' own "
        f"work the rest; summed over nodes: {parts}"
    )
    return f"{words} (Flower starts a process for every message: import)" if "import" in total else words
