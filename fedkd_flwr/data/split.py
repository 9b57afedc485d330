"""A node's examples: which train, which are held out."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def held_out(
    labels: "NDArray[Any]", fraction: float, limit: int, rng: "np.random.Generator"
) -> tuple["NDArray[np.int64]", "NDArray[np.int64]"]:
    """Rows to train on and rows to test on, both ascending.

    A systematic sample of the shuffled rows sorted by class: it holds each class's share of the rows to
    within one row, also of classes with a single row.

    Args:
        labels: int64 [n], n at least 2; or the number of each row, float64 [n], whose range is then covered evenly.
        fraction: share of the rows held out; at least one row is, and one is left to train on.
        limit: at most so many of the rows held out are tested on, again by class; 0: all.
        rng: the only source of randomness.

    Returns:
        int64 [n - held], int64 [min(held, limit)]: disjoint.
    """
    import numpy as np

    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    count = min(max(round(fraction * len(labels)), 1), len(labels) - 1)
    held = by_class[_systematic(count, len(labels), rng)]
    test = held[_systematic(limit, count, rng)] if 0 < limit < count else held
    return np.setdiff1d(np.arange(len(labels)), held), np.sort(test)


def thinned(
    labels: "NDArray[np.int64]", rows: "NDArray[np.int64]", limit: int, rng: "np.random.Generator"
) -> "NDArray[np.int64]":
    """At most `limit` (0: all) of these rows, ascending, of each class its share; labels: int64 [n]."""
    import numpy as np

    if not 0 < limit < len(rows):
        return rows
    shuffled = rng.permutation(rows)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    return np.sort(by_class[_systematic(limit, len(rows), rng)])


def drawn(count: int, limit: int, rng: "np.random.Generator") -> "NDArray[np.int64]":
    """At most `limit` (0: all) of the rows 0 ... count - 1, ascending, whatever their classes."""
    import numpy as np

    return np.sort(rng.permutation(count)[: limit or None])


def _systematic(count: int, population: int, rng: "np.random.Generator") -> "NDArray[np.int64]":
    """`count` evenly spaced positions of `population`, from a random start: all are equally likely."""
    import numpy as np

    return ((np.arange(count) + rng.random()) * population / count).astype(np.int64)
