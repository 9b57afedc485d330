"""`fedkd check`: what each node has, as it would learn from it, and all that is wrong at once."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from fedkd_flwr.cli.preflight import Look, NodeConfig, look_at_number, looks_at_nodes, named
from fedkd_flwr.config.node_config import config_at_node
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.data import DataReport, DataSettings, NodeData, load_node_data, node_name
from fedkd_flwr.errors import ConfigError, FedKDError, in_full
from fedkd_flwr.runtime.disk import write_text
from fedkd_flwr.runtime.recent import Recent

if TYPE_CHECKING:
    from fedkd_flwr.client.model_cache import ModelCache

_CHUNK = 2048
"""Examples encoded at a time."""

_CLASSES = 12
"""At most so many classes are told apart in the table."""


@dataclass(frozen=True)
class CheckedNode:
    """What a node has.

    Attributes:
        title: whose data they are.
        labels: the names of all classes.
        report: the counts.
        train: examples to train on.
        test: examples held out.
    """

    title: str
    labels: tuple[str, ...]
    report: DataReport
    train: int
    test: int


@dataclass(frozen=True)
class Checked:
    """What was found: the nodes whose data can be read, and every mistake in a line."""

    nodes: tuple[CheckedNode, ...] = ()
    mistakes: tuple[str, ...] = ()


def check(config: RunConfig, nodes: Sequence[NodeConfig], say: Callable[[str], None]) -> Checked:
    """Look at all that these nodes need, read all of their data, and go on after mistakes.

    Args:
        config: of the run, with absolute paths.
        nodes: the node configs.
        say: is told what takes time.
    """
    found: list[CheckedNode] = []

    def load(config: RunConfig, node: NodeConfig, recent: Recent) -> None:
        own = config
        with suppress(FedKDError):  # said where the node's settings are looked at
            own = config_at_node(config, node)
        data = load_node_data(DataSettings.of(own), node, recent)
        title = str(node.get("name") or data.name)
        found.append(CheckedNode(title, data.labels, data.report, len(data.train), len(data.test)))
        say(f"node {title}: {len(data.train) + len(data.test):,} examples")
        found[-1] = replace(found[-1], report=_counted(own, data))

    looks: list[Look] = [partial(_look_at_names, config, nodes)]
    if not any("data-path" in node for node in nodes):
        looks.append(partial(look_at_number, config, len(nodes)))
    looks += [named(node, partial(_look_at_device, config, node)) for node in nodes]
    mistakes = _mistakes((*looks, *looks_at_nodes(config, nodes, nodes, load)))
    if not mistakes:
        from fedkd_flwr.client.model_cache import ModelCache

        say("the models are tried on two made-up examples")
        cache, pairs = ModelCache(), zip(nodes, found, strict=True)
        looks = [named(node, partial(_try_models, cache, config, node, has.labels)) for node, has in pairs]
        mistakes = _mistakes(looks)
    return Checked(tuple(found), mistakes)


def as_table(nodes: Sequence[CheckedNode]) -> Table:
    """Render what nodes have for the terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("node")
    for heading in (
        "rows",
        "repeats",
        "with another label",
        "unlabelled",
        "to train",
        "held out",
        "texts cut",
        "tokens of the longest",
    ):
        table.add_column(heading, justify="right")
    table.add_column("examples of each label")
    for node in nodes:
        report, tokens = node.report, node.report.longest > 0
        counts = (
            report.rows, report.repeats, report.conflicts, report.unlabelled, node.train, node.test,
            report.cut if tokens else None, report.longest if tokens else None,
        )  # fmt: skip
        cells = ("" if count is None else f"{count:,}" for count in counts)
        table.add_row(node.title, *cells, _classes(node))
    return table


def write_held_out(path: Path, nodes: Sequence[CheckedNode]) -> None:
    """Write which rows each node holds out: json {node: [row, ...]}, or csv with a node and a row a line.

    Raises:
        ConfigError: the suffix is neither, or the file cannot be written.
    """
    rows = {node.title: node.report.held_out for node in nodes}
    try:
        write_text(path, _FORMATS[path.suffix.lower()](rows))
    except KeyError:
        raise ConfigError(f"--held-out is {str(path)!r}: end it in {' or '.join(_FORMATS)}") from None
    except OSError as error:
        raise ConfigError(f"--held-out is {str(path)!r}: it cannot be written ({error.strerror})") from None


def _mistakes(looks: Iterable[Look]) -> tuple[str, ...]:
    """What all of these find wrong, each mistake once."""
    found: dict[str, None] = {}
    for look in looks:
        try:
            look()
        except FedKDError as error:
            found.setdefault(in_full(error))
    return tuple(found)


def _try_models(cache: "ModelCache", config: RunConfig, node: NodeConfig, labels: tuple[str, ...]) -> None:
    from fedkd_flwr.client.model_cache import PairKey
    from fedkd_flwr.runtime.device import choose_device

    own = config_at_node(config, node)
    key = PairKey(own, labels, own.model.shared_head != "never", None)
    with cache.lend(key) as models:
        cache.try_once(key, models, choose_device("cpu", "fp32"))


def _look_at_names(config: RunConfig, nodes: Sequence[NodeConfig]) -> None:
    """A node keeps its state under its name, and the server tells nodes apart by it."""
    names: Counter[str] = Counter()
    for node in nodes:
        with suppress(FedKDError):  # said where its data are looked for
            names[node_name(DataSettings.of(config), node)] += 1
    for name, count in names.items():
        if count > 1:
            raise ConfigError(f"{count} nodes are called {name!r}: give each a name of its own in its node config")


def _look_at_device(config: RunConfig, node: NodeConfig) -> None:
    from fedkd_flwr.runtime.device import choose_device

    own = config_at_node(config, node)
    choose_device(own.run.device, own.run.precision)


def _counted(config: RunConfig, data: NodeData) -> DataReport:
    """The report with what is counted while examples are encoded: all are, and none is kept."""
    from fedkd_flwr.models.readers import build_task
    from fedkd_flwr.tasks.text import cuts

    task, cut, longest = build_task(config, data.labels), 0, 0
    for part in (data.train, data.test):
        for start in range(0, len(part), _CHUNK):
            chunk = part.select(range(start, min(start + _CHUNK, len(part))))
            chunk_cut, chunk_longest = cuts(task.encode(chunk))
            cut, longest = cut + chunk_cut, max(longest, chunk_longest)
    return replace(data.report, cut=cut, longest=longest)


def _classes(node: CheckedNode) -> str:
    found = sorted(zip(node.labels, node.report.classes, strict=False), key=lambda label: -label[1])
    rest = f", {len(found) - _CLASSES} more" if len(found) > _CLASSES else ""
    return ", ".join(f"{label} {count:,}" for label, count in found[:_CLASSES]) + rest


def _as_json(rows: Mapping[str, Sequence[int]]) -> str:
    return json.dumps(rows) + "\n"


def _as_csv(rows: Mapping[str, Sequence[int]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("node", "row"))
    writer.writerows((node, row) for node, held in rows.items() for row in held)
    return text.getvalue()


_FORMATS: Mapping[str, Callable[[Mapping[str, Sequence[int]]], str]] = {".json": _as_json, ".csv": _as_csv}
