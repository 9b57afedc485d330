"""A launch as its user follows it: shown while it goes, its log in a file, and in the end what was kept."""

from pathlib import Path

from fedkd_flwr.cli.launcher import Job, Verdict, launch
from fedkd_flwr.live.screen import log_of, shown
from fedkd_flwr.tracking.summary import read_summary


def launch_shown(job: Job, folder: Path, *, show: bool = True, keep_view: bool = False) -> Verdict:
    """Launch a run, show it, and keep its log beside its folder.

    Args:
        job: what to run.
        folder: of the run.
        show: whether anything is shown.
        keep_view: the last view stays on the terminal.

    Raises:
        RunError: the federation did not start or refused the app.
        Interrupted: a signal asked this process to end.
    """
    log = log_of(folder)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file, shown(folder, show=show, keep=keep_view) as tell:
        return launch(job, tell, lambda line: print(line, file=file, flush=True))


def what_is_kept(folder: Path, num_rounds: int) -> str:
    """What a run that was stopped has left, in words; empty: no node had joined, so that nothing is left.

    Args:
        folder: of the run.
        num_rounds: how many rounds it was to have.
    """
    if not (folder / "checkpoints").is_dir():
        return ""
    number = max((row.number for row in read_summary(folder).rounds), default=0)
    if not number:
        return f"kept: {folder}, whose nodes have joined; no round was finished"
    rounds = "round 1" if number == 1 else f"rounds 1 to {number}"
    return f"kept: {rounds} of {num_rounds} in {folder}, and each node's models"
