import subprocess
import sys
import threading

import pytest

from fedkd_flwr.cli.run_log import RunLog
from fedkd_flwr.runtime.flower_log import FAILED


def read(*lines: str) -> tuple[RunLog, list[str]]:
    """The log of a process that prints these lines, and what of it was kept."""
    program = f"print({chr(10).join(lines)!r})"
    kept: list[str] = []
    log = RunLog(subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True), kept.append)
    log.wait(30)
    return log, kept


def test_the_log_is_kept_as_it_comes_without_colours_and_what_would_mislead() -> None:
    log, kept = read("Using SuperLink: x", "\x1b[92mINFO \x1b[0m:   round 1", "  two blanks before")
    assert kept == ["INFO :   round 1", "  two blanks before"]
    assert (log.error, log.last_words) == ("", "the last line of its log: two blanks before")


def test_an_error_of_ours_is_remembered_not_kept_nor_what_follows() -> None:
    log, kept = read("INFO :  round 1", f"\x1b[91mERROR \x1b[0m:  {FAILED}too few nodes: 0", "", "SystemExit: 700")
    assert kept == ["INFO :  round 1"]
    assert log.error == "too few nodes: 0"


@pytest.mark.parametrize("line", ["ValueError: the culprit is X", "torch.cuda.OutOfMemoryError: the culprit is X"])
def test_an_unknown_exception_is_kept_whole_and_its_last_line_is_remembered(line: str) -> None:
    log, kept = read("Traceback (most recent call last):", '  File "x.py", line 1', line, "ERROR :  Exit Code: 700")
    assert len(kept) == 4
    assert log.error == line.split(".")[-1]


def test_of_an_exception_inside_flowers_own_the_inner_one_is_remembered() -> None:
    log, _ = read(
        "Exception: The current node timed out during startup.", "RuntimeError: Simulation Runtime crashed.",
        "RuntimeError: An error was encountered. Ending simulation.",
    )  # fmt: skip
    assert log.error == "Exception: The current node timed out during startup."


def test_rays_own_daemon_is_no_sign_of_life_of_a_run() -> None:
    """A disk that is almost full must not hide that a run hangs."""
    program = "import time; print('round 1', flush=True); time.sleep(1); print('(raylet) full', flush=True); input()"
    said = threading.Event()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], text=True, **pipes) as process:  # type: ignore[call-overload]
        log = RunLog(process, lambda line: said.set() if line == "(raylet) full" else None)
        assert said.wait(30)
        assert log.silence >= 1 and log.last_words == "the last line of its log: round 1"
        process.kill()
