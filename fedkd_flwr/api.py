"""What a notebook calls: a federation on this machine, and the run that it leaves."""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from fedkd_flwr.config.name_lists import listed
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.config.sources import SOURCES, named_for
from fedkd_flwr.errors import ConfigError, DataError, RunError
from fedkd_flwr.runtime.bars import without_bars
from fedkd_flwr.tracking.finished_run import Run
from fedkd_flwr.tracking.run_names import fresh_run_name

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

Engine = Literal["local", "ray"]


def simulate(
    config: RunConfig,
    nodes: "Sequence[Dataset | DatasetDict] | Dataset | DatasetDict | int",
    *,
    num_clients: int | None = None,
    runs_dir: str | Path | None = None,
    progress: bool = True,
    engine: Engine = "local",
) -> Run:
    """Run a federation on this machine, with the strategy and the clients of the Flower apps.

    Args:
        config: of the run; its `data.dataset` counts only where `nodes` is a number.
        nodes: the clients' data: a data set for each client, or one for `num_clients` of them, which share it as
            `config.data.partition` says, or the number of clients that share the config's own data set. A
            `DatasetDict` with the splits `train` and `test` says what is held out.
        num_clients: number of clients where `nodes` is one data set.
        runs_dir: folder for the run's folder; None: that of the config.
        progress: show how the run goes: as a live view on a terminal and in a notebook, otherwise in lines.
        engine: `local`: one client after the other in this process; `ray`: Flower's simulation, in processes.

    Returns:
        The run, as `load_run` reads it from its folder.

    Raises:
        ConfigError: the arguments are not usable.
        DataError: the data are not what the run needs.
        RunError: the run cannot be finished; says why and how it may go on.
        FedKDError: anything else that a user can act on, in one line.
    """
    if engine not in (known := get_args(Engine)):
        raise ConfigError(f"engine {engine!r} is unknown: expected {' or '.join(known)}")
    count = _count(nodes, num_clients)
    if count < config.federation.min_train_nodes:
        raise ConfigError(
            f"federation.min-train-nodes is {config.federation.min_train_nodes} but there are {count} clients: "
            "set it lower, or add clients"
        )
    with tempfile.TemporaryDirectory(prefix="fedkd-") as folder:
        config = _with_data(config, nodes, Path(folder, "data"))
        config = config.changed(
            run={
                "name": config.run.name or fresh_run_name(),
                "runs_dir": str(Path(runs_dir or config.run.runs_dir).expanduser().absolute()),
                "state_dir": str(Path(config.run.state_dir).expanduser().absolute()),
            }
        )
        run = _in_this_process if engine == "local" else _with_ray
        try:
            run(config, count, progress)
        except KeyboardInterrupt:
            print(_how_to_go_on(config, by_command=isinstance(nodes, int)))
            raise
        return Run.load(_folder(config))


def load_run(folder: str | Path) -> Run:
    """Read a run from its folder, `runs/NAME`.

    Args:
        folder: of the run.

    Returns:
        The run, as `simulate` returned it.

    Raises:
        StateError: there is no run in this folder, or it is not one of this version.
    """
    return Run.load(folder)


def _count(nodes: "Sequence[Dataset | DatasetDict] | Dataset | DatasetDict | int", num_clients: int | None) -> int:
    """The number of clients."""
    from datasets import Dataset, DatasetDict

    if isinstance(nodes, Dataset | DatasetDict):
        if num_clients is None:
            raise ConfigError("one data set is given: set num_clients, or give a list with a data set for each client")
        count = num_clients
    else:
        count = nodes if isinstance(nodes, int) else len(nodes)
        if num_clients not in (None, count):
            raise ConfigError(f"num_clients is {num_clients} but there are {count} clients: leave it out")
        if not isinstance(nodes, int):
            for number, data in enumerate(nodes):
                if not isinstance(data, Dataset | DatasetDict):
                    raise DataError(
                        f"the data of client {number} are a {type(data).__name__}: "
                        "expected a datasets.Dataset or a datasets.DatasetDict"
                    )
    if count < 1:
        raise ConfigError(f"there are {count} clients: expected 1 or more")
    return count


@without_bars()
def _with_data(
    config: RunConfig, nodes: "Sequence[Dataset | DatasetDict] | Dataset | DatasetDict | int", folder: Path
) -> RunConfig:
    """The config of a run whose clients read these data, which are written into a folder."""
    from datasets import Dataset, DatasetDict

    if isinstance(nodes, int):
        return config
    if (inputs := config.task_spec.inputs) not in SOURCES["hf"].readers:
        raise ConfigError(
            f"task {config.task!r} reads folders, not data sets: set data.dataset to {named_for(inputs)} and give the "
            "number of clients"
        )
    if isinstance(nodes, Dataset | DatasetDict):
        nodes.save_to_disk(str(folder))
        return config.changed(data={"dataset": f"hf:{folder}"})
    folders = [folder / f"client-{number:0{len(str(len(nodes) - 1))}d}" for number in range(len(nodes))]
    for data, place in zip(nodes, folders, strict=True):
        data.save_to_disk(str(place))
    return config.changed(data={"dataset": f"hf:{folder}", "labels": config.data.labels or _labels(config, folders)})


def _labels(config: RunConfig, folders: Iterable[Path]) -> str:
    """The labels of all clients, where it takes all data to know them; empty: each client's data tell its own."""
    from datasets import concatenate_datasets

    from fedkd_flwr.data import DataSettings
    from fedkd_flwr.data.examples import distinct_labels, read_examples
    from fedkd_flwr.data.label_names import require_few
    from fedkd_flwr.data.reading import find

    if config.task_spec.labels == "tags" or config.model.shared_head == "never":
        return ""
    examples = [read_examples(find(f"hf:{folder}", "texts"), DataSettings.of(config)) for folder in folders]
    declared = {each.declared for each in examples}
    if len(declared) == 1 and declared != {()}:
        return ""
    together = concatenate_datasets([each.dataset.select_columns("label") for each in examples])
    found = distinct_labels(together)
    if config.task_spec.labels != "number":
        require_few(found, len(together), "the clients' data")
    return listed(found)


def _in_this_process(config: RunConfig, clients: int, progress: bool) -> None:
    """Run one client after the other."""
    from fedkd_flwr.cli.preflight import simulated_nodes
    from fedkd_flwr.live.channel import listening
    from fedkd_flwr.live.screen import log_of, shown
    from fedkd_flwr.runtime.quiet import quiet
    from fedkd_flwr.simulation import InProcessGrid, run_federation

    folder = _folder(config)
    with quiet(log_of(folder)), shown(folder, show=progress, keep=True) as tell, listening(tell):
        run_federation(InProcessGrid(config.as_run_config(), simulated_nodes(clients)))


def _with_ray(config: RunConfig, clients: int, progress: bool) -> None:
    """Run Flower's simulation."""
    from fedkd_flwr.cli.installed_app import installed_app
    from fedkd_flwr.cli.launcher import Job
    from fedkd_flwr.cli.preflight import preflight
    from fedkd_flwr.cli.processes import Interrupted
    from fedkd_flwr.cli.shown_run import launch_shown

    preflight(config, clients, 1, 0.0, print if progress else lambda line: None)
    with installed_app() as app:
        job = Job(app=app, run_config=config.as_run_config(), nodes=clients)
        try:
            verdict = launch_shown(job, _folder(config), show=progress, keep_view=True)
        except Interrupted:
            raise KeyboardInterrupt from None
    if not verdict.completed:
        raise RunError(verdict.reason)


def _folder(config: RunConfig) -> Path:
    """The folder of a run that has a name."""
    return Path(config.run.runs_dir, config.run.name)


def _how_to_go_on(config: RunConfig, by_command: bool) -> str:
    """What a run that was stopped has kept, and what goes on with it; data that were handed over are gone."""
    from fedkd_flwr.cli.run_arguments import resume_command
    from fedkd_flwr.cli.shown_run import what_is_kept

    folder = _folder(config)
    if not (kept := what_is_kept(folder, config.num_rounds)):
        return "fedkd: stopped before any node had joined: nothing is kept"
    command = resume_command(None, folder) if by_command else ""
    return f"fedkd: {kept}" + (f"\nfedkd: continue it with: {command}" if command else "")
