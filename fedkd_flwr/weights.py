"""How much each of several clients counts."""

from collections.abc import Sequence

_ENOUGH = 3
"""Nodes among which one can outweigh the others together."""


def capped(given: Sequence[float], share: float) -> list[float]:
    """Weights, the largest ones lowered until none is more than `share` of their sum.

    The others stay as they are, and so do all of fewer than three: there is no telling which of two nodes is too
    heavy. Where the share is too small for so few nodes, all weigh the same.
    """
    if len(given) < _ENOUGH:
        return list(given)
    if share * len(given) <= 1:
        return [1.0] * len(given)
    others, limit = sum(given), 0.0
    for above, heaviest in enumerate(sorted(given, reverse=True)):
        limit = share * others / (1 - share * above)
        if heaviest <= limit:
            break
        others -= heaviest
    return [min(one, limit) for one in given]
