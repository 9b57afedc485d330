"""Processes that die: at a file operation, or in a function, killed by SIGKILL."""

import os
import pkgutil
import signal
import sys
from collections.abc import Callable
from typing import Any


def killed_at(step: int, act: Callable[[], object]) -> bool:
    """Act in a child process that is killed at its `step`-th file operation.

    False: it had done all before.
    """

    def prepare() -> None:
        count = 0

        def hook(event: str, _: object) -> None:
            nonlocal count
            if event == "open" or event.startswith(("os.", "shutil.", "fcntl.")):
                count += 1
                if count == step:
                    _die()

        sys.addaudithook(hook)

    return _killed(prepare, act)


def killed_in(
    function: str, act: Callable[[], object], entry: int = 1, once: Callable[[], object] = lambda: True
) -> bool:
    """Act in a child process that is killed as it enters a function.

    Args:
        function: its dotted name, where it is looked up.
        act: what to do.
        entry: at which entry, 1 ... .
        once: entries count from when this is true.

    Returns:
        False: it lived.
    """

    def prepare() -> None:
        place, _, name = function.rpartition(".")
        owner = pkgutil.resolve_name(place)
        entered, entries = getattr(owner, name), 0

        def enter(*arguments: Any, **named: Any) -> Any:
            nonlocal entries
            entries += bool(once())
            if entries == entry:
                _die()
            return entered(*arguments, **named)

        setattr(owner, name, enter)

    return _killed(prepare, act)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _killed(prepare: Callable[[], None], act: Callable[[], object]) -> bool:
    child = os.fork()
    if child == 0:
        try:
            prepare()
            act()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == -signal.SIGKILL
