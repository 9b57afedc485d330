import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedkd_flwr.runtime.cpus import available_cpus

HERE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
TWO = pytest.mark.skipif(HERE < 2, reason="needs two CPUs")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def limit(root: Path, group: str, quota: int, version: int) -> None:
    """Give a control group a quota in percent of a CPU (-1: none)."""
    folder = root / "sys/fs/cgroup" / group
    if version == 2:
        write(folder / "cpu.max", f"{quota * 1000 if quota > 0 else 'max'} 100000\n")
    else:
        write(folder / "cpu.cfs_quota_us", f"{quota * 1000 if quota > 0 else -1}\n")
        write(folder / "cpu.cfs_period_us", "100000\n")


def test_without_control_groups_the_affinity_mask_decides(tmp_path: Path) -> None:
    assert available_cpus(tmp_path) == HERE


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinity masks")
def test_a_masked_process_has_the_cpus_of_its_mask(tmp_path: Path) -> None:
    """A real mask in a real process; PyTorch's threads follow it."""
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from fedkd_flwr.runtime.cpus import available_cpus; "
        "from fedkd_flwr.runtime.device import set_threads; import torch; "
        "set_threads(0); print(available_cpus(), torch.get_num_threads())"
    )
    masked = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert masked.stdout.split() == ["1", "1"]


@TWO
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("own", "above", "cpus"), [(100, -1, 1), (-1, 100, 1), (150, 900, 1), (50, -1, 1), (-1, -1, HERE), (9900, -1, HERE)]
)
def test_the_tightest_quota_counts(tmp_path: Path, version: int, own: int, above: int, cpus: int) -> None:
    """A process's own group, or one above it; fractions are rounded down, to 1 at least."""
    parent = "user.slice" if version == 2 else "cpu,cpuacct/user.slice"
    write(
        tmp_path / "proc/self/cgroup",
        "0::/user.slice/job:1\n" if version == 2 else "5:memory:/\n4:cpu,cpuacct:/user.slice/job:1\n0::/\n",
    )
    limit(tmp_path, parent, above, version)
    limit(tmp_path, f"{parent}/job:1", own, version)
    assert available_cpus(tmp_path) == cpus


@TWO
@pytest.mark.parametrize(("version", "top"), [(2, "."), (1, "cpu")])
def test_in_a_container_the_group_lies_at_the_top(tmp_path: Path, version: int, top: str) -> None:
    """Docker with version 1 names the group's path on the host, where the container has it as its top group."""
    write(tmp_path / "proc/self/cgroup", "0::/\n" if version == 2 else "4:cpu,cpuacct:/docker/abc\n")
    limit(tmp_path, top, 100, version)
    assert available_cpus(tmp_path) == 1


@TWO
def test_other_groups_do_not_count(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/mine\n")
    limit(tmp_path, "others", 100, 2)
    limit(tmp_path, "mine/child", 100, 2)
    assert available_cpus(tmp_path) == HERE
