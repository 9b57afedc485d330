"""A process that dies at a file operation."""

import os
import sys
from collections.abc import Callable


def killed_at(step: int, act: Callable[[], None]) -> bool:
    """Act in a child process that is gone, without any clean-up, at its `step`-th file operation.

    False: it had done all before.
    """
    child = os.fork()
    if child == 0:
        count = 0

        def hook(event: str, _: object) -> None:
            nonlocal count
            if event == "open" or event.startswith(("os.", "shutil.")):
                count += 1
                if count == step:
                    os._exit(9)

        sys.addaudithook(hook)
        try:
            act()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 9
