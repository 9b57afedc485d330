"""How the commands of `fedkd` speak: lines to the terminal, errors in one line, exit codes; no text is markup."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.table import Table

from fedkd_flwr.errors import FedKDError, in_full

FAILED, BAD_INPUT = 1, 2
"""Exit codes."""

_WIDE = 1000

out = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
err = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


@contextmanager
def one_line_errors(code: int) -> Iterator[None]:
    """Inside, an error that a user can act on is one line and ends the command with this exit code."""
    try:
        yield
    except FedKDError as error:
        err.print(f"fedkd: {in_full(error)}")
        raise typer.Exit(code) from None


def print_wide(table: Table) -> None:
    """Print a table, in a file or pipe on lines as long as it takes."""
    (out if out.is_terminal else Console(width=_WIDE, markup=False, emoji=False)).print(table)


def say(line: str) -> None:
    """Print a line of ours."""
    out.print(f"fedkd: {line}", style="bold")
