"""How many CPUs this process may use, which can be fewer than the machine has."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def available_cpus(root: Path = Path("/")) -> int:
    """Whole CPUs that this process may keep busy: those of its affinity mask, within the quotas of its control groups.

    Args:
        root: folder that holds `proc` and `sys`.

    Returns:
        At least 1; a quota of 1.5 CPUs counts as 1.
    """
    affine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([affine, *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """The CPU quotas of this process's control groups, of version 1 or 2, and of all groups above them, in CPUs."""
    for folder in _groups(root):
        with suppress(OSError, ValueError):  # version 2; without a quota the first word is "max"
            quota, period = map(int, (folder / "cpu.max").read_text().split())
            yield quota / period
        with suppress(OSError, ValueError):  # version 1; without a quota it is -1
            quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
            if quota > 0:
                yield quota / period


def _groups(root: Path) -> set[Path]:
    """Folders of the control groups that may limit this process; inside a container its own group is the top one."""
    top = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    folders = {top, top / "cpu"}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        mounted = top / controllers
        if not controllers or "cpu" in controllers.split(","):
            group = mounted / path.lstrip("/")
            folders |= {group, *(parent for parent in group.parents if parent.is_relative_to(mounted))}
    return folders
