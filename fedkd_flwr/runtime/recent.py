"""Results that were asked for last, kept by whoever owns a process."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Thing = TypeVar("Thing")


class Recent:
    """Keeps the results of the last few keys; the entry of a process owns one and hands it down."""

    def __init__(self, most: int = 4) -> None:
        """Keep nothing yet, and at most so many results."""
        self._most = most
        self._results: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Thing]) -> Thing:
        """What is kept under a key, which says all that decides on it; where nothing is, it is made."""
        if key not in self._results:
            made = make()
            while len(self._results) >= self._most:
                self._results.popitem(last=False)
            self._results[key] = made
        self._results.move_to_end(key)
        found: Thing = self._results[key]
        return found
