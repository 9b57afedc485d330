"""`fedkd silo`: what the owner of a node's data does with a run before their node takes part."""

from pathlib import Path
from typing import Annotated

import typer

from fedkd_flwr.privacy import approved
from fedkd_flwr.terminal import BAD_INPUT, one_line_errors, out, say

silo = typer.Typer(name="silo", no_args_is_help=True, help="For the owner of a node's data: what may leave the node.")


@silo.command("install-wrapper")
def install_wrapper(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of its own, such as /etc/fedkd/bin.")],
) -> None:
    """Write the commands that let a SuperNode run approved apps only, and of those the code installed here.

    They count where DIR is first on the PATH of the SuperNode. What is approved in DIR stays.
    """
    with one_line_errors(BAD_INPUT):
        approved.install(folder)
        say(f"put it first on the PATH of the SuperNode, and of no SuperLink: export PATH={folder.absolute()}:$PATH")


@silo.command("hash")
def hash_app(app: Annotated[Path, typer.Argument(metavar="APP")] = Path()) -> None:
    """Print the hash of the Flower app in folder APP, by which it is approved."""
    with one_line_errors(BAD_INPUT):
        out.print(approved.app_hash(app))


@silo.command()
def approve(
    app: Annotated[str, typer.Argument(metavar="HASH", help="As `fedkd silo hash APP` and a node's refusal give it.")],
) -> None:
    """Let the SuperNodes that have the wrapper first on their PATH, as here, take part in runs of this app."""
    with one_line_errors(BAD_INPUT):
        folder = approved.installed()
        approved.approve(folder, app)
        say(f"approved in {folder / approved.APPROVED}; to withdraw it, delete its line there")
