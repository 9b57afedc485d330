"""RUN/nodes/TITLE leads to the models of the node whose data have this title, where they lie on this machine."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from fedkd_flwr.names import fitting

_FOLDER = "nodes"


def link_nodes(run: Path, states: Path, titles: Mapping[str, str]) -> None:
    """Link the states that are there; files with their paths where links are not possible. No error is one.

    Args:
        run: the run's folder.
        states: the folder of its lineage below state-dir.
        titles: node -> its data, for people.
    """
    for name, node in _link_names(titles).items():
        link, target = run / _FOLDER / name, states / node
        if not target.is_dir() or (link.is_symlink() and link.readlink() == target):
            continue
        with suppress(OSError):
            link.parent.mkdir(exist_ok=True)
            link.unlink(missing_ok=True)
            try:
                link.symlink_to(target, target_is_directory=True)
            except (OSError, NotImplementedError):
                link.write_text(f"{target}\n", encoding="utf-8")


def node_folder(run: Path, node: str, titles: Mapping[str, str]) -> Path:
    """Where the link to a node's state leads; to nothing where the node's state is on another machine.

    Args:
        run: the run's folder.
        node: its name.
        titles: node -> its data, of all nodes.
    """
    names = {node: name for name, node in _link_names(titles).items()}
    link = run / _FOLDER / names[node]
    if link.is_file():
        return Path(link.read_text(encoding="utf-8").strip())
    return link


def _link_names(titles: Mapping[str, str]) -> dict[str, str]:
    """Name of the link -> node: no two alike, also where upper and lower case are."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for node, title in titles.items():
        name = fitting(title)
        while name.casefold() in taken:
            name = f"{name}-{node}"
        taken.add(name.casefold())
        found[name] = node
    return found
