"""What a run would find out late, looked at on this machine before anything starts; nothing is written."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from fedkd_flwr.config.groups import Value
from fedkd_flwr.config.node_config import config_at_node, require_named_labels
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.data import DataSettings, data_fingerprint, load_node_data, load_test_data
from fedkd_flwr.errors import ConfigError, DataError, StateError, at_node
from fedkd_flwr.runtime.cpus import available_cpus
from fedkd_flwr.runtime.recent import Recent

NodeConfig = Mapping[str, Value]

Look = Callable[[], object]
"""Looks at one thing; raises a `FedKDError` where it is not as a run needs it."""

_MOST_READ = 256 * 2**20
"""Bytes of data that are read before a run; of larger ones the nodes find out."""


def simulated_nodes(count: int) -> list[NodeConfig]:
    """The node configs of a simulation of `count` nodes."""
    return [{"partition-id": number, "num-partitions": count} for number in range(count)]


def preflight(config: RunConfig, nodes: int, cpus: int, gpus: float, say: Callable[[str], None]) -> None:
    """Look at all that a simulated run needs, beginning with what takes least time.

    Args:
        config: of the run, with absolute paths.
        nodes: how many are simulated.
        cpus: of a node.
        gpus: of a node.
        say: is told what is not looked at.

    Raises:
        FedKDError: the first thing that is not as the run needs it.
    """
    every = simulated_nodes(nodes)
    first_tells_all = config.data.partition != "natural" and not config.data.dataset.startswith("iob:")
    looked_at = every[:1] if first_tells_all else every
    if large := (size := _bytes_of(config)) is None or size > _MOST_READ:
        say("only the nodes will read the data: `fedkd check` reads them beforehand")

    def load(config: RunConfig, node: NodeConfig, recent: Recent) -> None:
        load_node_data(DataSettings.of(config), node, recent)

    looks: list[Look] = [
        partial(_look_at_cpus, cpus),
        partial(look_at_folder, "run.runs-dir", config.run.runs_dir),
        partial(_look_at_gpus, config, gpus),
        partial(look_at_number, config, nodes),
        *looks_at_nodes(config, looked_at, [] if large else looked_at, load),
        partial(look_for_space, config, every),
    ]
    for look in looks:
        look()


def looks_at_nodes(
    config: RunConfig,
    nodes: Sequence[NodeConfig],
    read: Sequence[NodeConfig],
    load: Callable[[RunConfig, NodeConfig, Recent], object],
) -> Iterator[Look]:
    """Look at what nodes need: settings, folders, data, models.

    Args:
        config: of the run.
        nodes: the node configs.
        read: those whose data are read.
        load: reads them; what was read for one node need not be read for the next.
    """
    recent = Recent()
    for node in nodes:
        yield named(node, partial(_look_for_data, config, node))
    yield partial(_look_for_test_data, config.data.server_test_data)
    for node in read:
        yield named(node, partial(_look_at_labels, config, node))
        yield named(node, partial(load, config, node, recent))
    if read and config.data.server_test_data:
        yield partial(_look_at_test_data, config, read[0], recent)
    for node in nodes:
        if "data-path" in node:
            yield named(node, partial(_look_at_models, config, node))
    if any("data-path" not in node for node in nodes):
        yield partial(_look_at_models, config, {})


def look_at_number(config: RunConfig, nodes: int) -> None:
    """Whether so many nodes can make up a run.

    Raises:
        ConfigError: they are too few.
    """
    if config.federation.min_train_nodes > nodes:
        raise ConfigError(f"federation.min-train-nodes is {config.federation.min_train_nodes} but --nodes is {nodes}")


def look_at_folder(key: str, folder: str) -> None:
    """Whether files can be put into a folder, which need not be there yet.

    Raises:
        ConfigError: they cannot; names the key.
    """
    nearest = _nearest(Path(folder))
    if not nearest.is_dir():
        raise ConfigError(f"{key} is {folder!r} but {nearest} is no folder: choose another")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(f"{key} is {folder!r} but nothing may be written to {nearest}: choose another")


def named(node: NodeConfig, look: Look) -> Look:
    """The look, whose errors then say which node they are about."""

    def look_at_node() -> None:
        with at_node(node.get("name")):
            look()

    return look_at_node


def _look_at_cpus(cpus: int) -> None:
    if cpus > (here := available_cpus()):
        raise ConfigError(f"--cpus-per-node is {cpus} but this process may use {here} CPUs")


def _look_at_gpus(config: RunConfig, gpus: float) -> None:
    """Ray hides the GPUs from a node that is given none."""
    if not gpus and config.run.device == "cuda":
        raise ConfigError("device is 'cuda' but nodes are given no GPU: add --gpus-per-node (0.25: four share one)")
    if not gpus and config.run.precision in ("auto", "fp32"):
        return
    import torch

    from fedkd_flwr.runtime.device import choose_device

    if gpus > torch.cuda.device_count():
        raise ConfigError(f"--gpus-per-node is {gpus:g} but this machine has {torch.cuda.device_count()} GPUs")
    choose_device(config.run.device if gpus else "cpu", config.run.precision)


def _look_for_data(config: RunConfig, node: NodeConfig) -> None:
    own = config_at_node(config, node)
    look_at_folder("run.state-dir", own.run.state_dir)
    data_fingerprint(DataSettings.of(own), node)


def _look_at_labels(config: RunConfig, node: NodeConfig) -> None:
    require_named_labels(config_at_node(config, node), node)


def _look_for_test_data(source: str) -> None:
    kind, _, path = source.partition(":")
    if kind not in ("", "hf") and not Path(path).expanduser().exists():
        raise DataError(f"data.server-test-data {path}: no such file or folder, correct the path in {source!r}")


def _look_at_test_data(config: RunConfig, node: NodeConfig, recent: Recent) -> None:
    settings = DataSettings.of(config)
    load_test_data(config.data.server_test_data, settings, load_node_data(settings, node, recent).labels)


def _look_at_models(config: RunConfig, node: NodeConfig) -> None:
    from fedkd_flwr.models.compatibility import check_models

    check_models(config_at_node(config, node) if node else config)


def look_for_space(config: RunConfig, nodes: Sequence[NodeConfig]) -> None:
    """Whether the disk has room for the nodes' teachers, each of which is left behind whole.

    Raises:
        StateError: it has not.
    """
    if "teacher" not in config.parts.trains:
        return
    teachers = [config_at_node(config, node).model.teacher for node in nodes]
    sizes = {teacher: _weights(teacher) for teacher in teachers}
    needed = sum(sizes[teacher] for teacher in teachers)
    free = shutil.disk_usage(_nearest(Path(config.run.state_dir))).free
    if needed > free:
        raise StateError(
            f"run.state-dir is {config.run.state_dir!r}: the teachers of {len(nodes)} nodes take "
            f"{needed / 2**30:,.1f} GB "
            f"there, its disk has {free / 2**30:,.1f} GB free: free some, or choose another disk"
        )


def _weights(reference: str) -> int:
    """Bytes of a checkpoint's weights; 0 where they do not lie in a folder."""
    from fedkd_flwr.models.hub import resolve

    folder = Path(resolve(reference))
    return max(sum(file.stat().st_size for file in folder.glob(f"*.{kind}")) for kind in ("safetensors", "bin"))


def _bytes_of(config: RunConfig) -> int | None:
    """Bytes that must be read to know the data of a run; None: they have to be downloaded first."""
    size = 0
    for source in (config.data.dataset, config.data.server_test_data):
        kind, _, path = source.partition(":")
        place = Path(path)
        if kind == "hf" and not place.is_dir():
            return None
        if kind == "imagefolder" or not path:
            continue
        files = place.rglob("*") if place.is_dir() else [place]
        size += sum(file.stat().st_size for file in files if file.is_file())
    return size


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    path = folder.absolute()
    return next(parent for parent in (path, *path.parents) if os.access(parent, os.F_OK))
