"""`fedkd`: run a federation on this machine, show what came of it."""

import os
import platform
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from fedkd_flwr.cli.check import Checked, write_held_out
from fedkd_flwr.cli.check import as_table as nodes_table
from fedkd_flwr.cli.check import check as check_nodes
from fedkd_flwr.cli.clean import as_table as lineages_table
from fedkd_flwr.cli.clean import choose, lineages, megabytes
from fedkd_flwr.cli.clean import remove as remove_lineage
from fedkd_flwr.cli.installed_app import installed_app
from fedkd_flwr.cli.launcher import Job
from fedkd_flwr.cli.preflight import preflight, simulated_nodes
from fedkd_flwr.cli.processes import Interrupted
from fedkd_flwr.cli.run_arguments import (
    NODES,
    Arguments,
    gather,
    gather_for_check,
    parse_overrides,
    resume_command,
)
from fedkd_flwr.cli.shown_run import launch_shown, what_is_kept
from fedkd_flwr.cli.silo import silo
from fedkd_flwr.cli.terminal import BAD_INPUT, FAILED, err, one_line_errors, out, print_wide, say
from fedkd_flwr.config.documentation import as_toml
from fedkd_flwr.live.screen import log_of
from fedkd_flwr.tracking.environment import version_of
from fedkd_flwr.tracking.summary import as_table, read_summary

app = typer.Typer(
    name="fedkd",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Federated fine-tuning of transformers by mutual distillation (FedKD).",
)

_SILENCE_MARGIN_SECONDS = 600

RunConfigOption = Annotated[
    list[str] | None,
    typer.Option("--run-config", "-c", help="Overrides 'key=value key2=\"text\"', as in `flwr run`; repeatable."),
]

AppArgument = Annotated[
    Path | None, typer.Argument(metavar="APP", help="Folder of the Flower app; left out: the installed package.")
]

app.add_typer(silo)


def _print_versions(asked: bool) -> None:
    """Print the versions that a report of a fault needs, and end."""
    if not asked:
        return
    found = ", ".join(f"{package} {version_of(package)}" for package in ("flwr", "torch", "transformers"))
    out.print(f"fedkd {version_of('fedkd-flwr')} ({found}, Python {platform.python_version()})")
    raise typer.Exit


@app.command()
def config() -> None:
    """Print all run-config keys with their defaults and meanings, as a TOML file for `fedkd run -c FILE`."""
    typer.echo(as_toml(), nl=False)


@app.callback()
def _main(
    _version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_versions, help="Print the versions and exit."),
    ] = False,
) -> None:
    """Take the options that belong to no command."""
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # read when that library is imported


@app.command()
def run(
    app_folder: AppArgument = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Simulated nodes: 6, or those of the resumed run.")] = None,
    cpus_per_node: Annotated[int, typer.Option(min=1, help="CPUs of a node; decides how many run at once.")] = 1,
    gpus_per_node: Annotated[float, typer.Option(min=0.0, help="GPUs of a node; 0.25: four share one.")] = 0.0,
    run_config: RunConfigOption = None,
    resume: Annotated[Path | None, typer.Option(help="Folder of a run to continue, with its own config.")] = None,
    timeout: Annotated[float | None, typer.Option(min=1.0, help="Stop the run after so many seconds.")] = None,
) -> None:
    """Run a simulated federation on this machine and wait for the verdict.

    Exit code: 0 the run completed; 1 it failed or hung; 2 the input is wrong and nothing was started.
    """
    with one_line_errors(BAD_INPUT):
        arguments = gather(app_folder, run_config or [], resume, nodes)
        preflight(arguments.config, arguments.nodes, cpus_per_node, gpus_per_node, say)
    share = ["--cpus-per-node", str(cpus_per_node)] if cpus_per_node != 1 else []
    share += ["--gpus-per-node", f"{gpus_per_node:g}"] if gpus_per_node else []
    how_to_go_on = resume_command(app_folder, arguments.folder, *share)
    with one_line_errors(FAILED), nullcontext(app_folder) if app_folder else installed_app() as app_to_run:
        job = Job(
            app=app_to_run.resolve(),
            run_config=arguments.config.as_run_config(),
            nodes=arguments.nodes,
            cpus_per_node=cpus_per_node,
            gpus_per_node=gpus_per_node,
            timeout=timeout,
            silence=arguments.config.federation.node_wait_seconds
            + arguments.config.federation.round_timeout_seconds
            + _SILENCE_MARGIN_SECONDS,
        )
        try:
            verdict = launch_shown(job, arguments.folder)
        except Interrupted as interrupted:
            _say_how_to_go_on(how_to_go_on, arguments)
            err.print(f"fedkd: stopped by {interrupted}; all its processes have ended")
            raise typer.Exit(interrupted.exit_code) from None
    _report(arguments)
    if not verdict.completed:
        say(f"log: {log_of(arguments.folder)}")
        _say_how_to_go_on(how_to_go_on, arguments)
        err.print(f"fedkd: {verdict.reason}")
        raise typer.Exit(FAILED)


@app.command()
def check(
    app_folder: AppArgument = None,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes that share the data set.")] = NODES,
    node_config: Annotated[
        list[str] | None,
        typer.Option(help="Node config of a node with data of its own, as SuperNodes take it; repeatable."),
    ] = None,
    run_config: RunConfigOption = None,
    held_out: Annotated[
        Path | None, typer.Option(help="Write the rows that each node holds out to this .json or .csv file.")
    ] = None,
) -> None:
    """Read the data of all nodes as a run would, print what each has, and say all that is wrong.

    Exit code: 0 nothing is wrong; 2 something is.
    """
    with one_line_errors(BAD_INPUT):
        config, mistakes = gather_for_check(app_folder, run_config or [])
        own = [parse_overrides(text, "node config") for text in node_config or []]
        found = Checked() if config is None else check_nodes(config, own or simulated_nodes(nodes), say)
        if found.nodes:
            print_wide(nodes_table(found.nodes))
        for mistake in (*mistakes, *found.mistakes):
            err.print(f"fedkd: {mistake}")
        if mistakes or found.mistakes:
            raise typer.Exit(BAD_INPUT)
        if held_out is not None:
            write_held_out(held_out, found.nodes)


@app.command()
def show(run_folder: Annotated[Path, typer.Argument(metavar="RUN")]) -> None:
    """Print the table of the run in folder RUN, finished or not: quality and bytes of each round."""
    with one_line_errors(BAD_INPUT):
        print_wide(as_table(read_summary(run_folder)))


@app.command()
def report(
    run_folders: Annotated[list[Path], typer.Argument(metavar="RUN...")],
    out: Annotated[Path | None, typer.Option(help="The page: RUN/report.html; report.html for several runs.")] = None,
    png: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write each plot as a PNG file, too.")] = None,
) -> None:
    """Write a page about the runs in folders RUN, finished or not: one file that needs no network."""
    from fedkd_flwr.tracking.report import REPORT, write_report
    from fedkd_flwr.tracking.report.pictures import write_pictures

    with one_line_errors(BAD_INPUT):
        default = run_folders[0] / REPORT if len(run_folders) == 1 else Path(REPORT)
        for path in write_pictures(run_folders, png) if png else ():
            say(f"plot: {path}")
        say(f"report: {write_report(run_folders, out or default)}")


@app.command()
def clean(
    state_dir: Annotated[Path, typer.Option(help="Where nodes of this machine keep their states.")] = Path("state"),
    remove: Annotated[list[str] | None, typer.Option(metavar="LINEAGE", help="Remove this one; repeatable.")] = None,
    all_finished: Annotated[bool, typer.Option("--all-finished", help="Remove those of all finished runs.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Remove what is named even where its run may go on.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """List what the nodes of runs keep on this machine, teachers among it, and remove what is asked for.

    Exit code: 0 all was listed or removed; 2 something cannot be; 1 the question was answered with no.
    """
    with one_line_errors(BAD_INPUT):
        found = lineages(state_dir)
        if not (remove or all_finished):
            print_wide(lineages_table(found))
            say(f"{len(found)} runs, {megabytes(found)} in {state_dir}")
            return
        chosen = choose(found, remove or [], all_finished, force)
        if not chosen:
            say(f"nothing to remove in {state_dir}")
            return
        print_wide(lineages_table(chosen))
        if not (yes or typer.confirm(f"Remove these {len(chosen)} with their teachers ({megabytes(chosen)})?")):
            raise typer.Exit(FAILED)
        for lineage in chosen:
            remove_lineage(lineage, force)
        say(f"removed {len(chosen)} runs, {megabytes(chosen)}")


@app.command()
def export(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN")],
    out: Annotated[Path | None, typer.Option(help="Folder for the models: that of the run.")] = None,
    round_number: Annotated[
        int | None, typer.Option("--round", min=1, help="One of the rounds of which a checkpoint is kept: the newest.")
    ] = None,
    label_shares: Annotated[
        str, typer.Option(help="Share of the examples that have each label where the models will be used: 0.2,0.8")
    ] = "",
) -> None:
    """Write the student of the run in folder RUN as a `from_pretrained` folder, from a checkpoint of the server.

    So is the teacher where all of its layers are shared. A finished run has done this by itself.
    """
    from fedkd_flwr.cli.export import export_run, parse_label_shares

    with one_line_errors(BAD_INPUT):
        for folder in export_run(run_folder, out, round_number, parse_label_shares(label_shares)):
            say(f"exported: {folder}")


def _report(arguments: Arguments) -> None:
    """Say where the results are and print the table, as far as the run got."""
    from fedkd_flwr.tracking.report import REPORT

    if not (arguments.folder / "history.json").exists():
        return
    with one_line_errors(FAILED):
        print_wide(as_table(read_summary(arguments.folder)))
    say(f"results: {arguments.folder}")
    if (page := arguments.folder / REPORT).is_file():
        say(f"report: {page}")


def _say_how_to_go_on(command: str, arguments: Arguments) -> None:
    """Print what the run has kept, and the command that resumes it; nothing where it has kept nothing."""
    if kept := what_is_kept(arguments.folder, arguments.config.num_rounds):
        say(kept)
        say(f"continue it with: {command}")
