"""A report of runs as one HTML page that people can look at, mail and print."""

from collections.abc import Sequence
from logging import getLogger
from pathlib import Path

from fedkd_flwr.errors import StateError
from fedkd_flwr.runtime.disk import write_text
from fedkd_flwr.runtime.one_line import one_line
from fedkd_flwr.tracking.report.page import page
from fedkd_flwr.tracking.report.source import Source

REPORT = "report.html"
"""Name of a run's own report in its folder."""

log = getLogger("flwr")


def write_report(runs: Sequence[Path], path: Path) -> Path:
    """Write the report of runs, of several side by side.

    Args:
        runs: their folders; the runs need not have finished.
        path: the page, which is replaced where it is there.

    Returns:
        The page.

    Raises:
        StateError: one line: a folder holds no run of this version, or the page cannot be written.
    """
    text = page([Source.read(run) for run in runs])
    try:
        write_text(path, text)
    except OSError as error:
        raise StateError(f"cannot write {path}: {error.strerror}") from None
    return path


def try_to_write_report(run: Path) -> None:
    """Write the report of a run into its folder at the run's end: nothing depends on it, so a failure is one line."""
    try:
        log.info("fedkd: report in %s", write_report([run], run / REPORT))
    except Exception as error:
        log.warning("fedkd: the run has no report: %s", one_line(f"{type(error).__name__}: {error}"))
