"""Bytes and seconds of a real deployment: a SuperLink and two SuperNodes on this machine, MiniLM-L6, real tweets.

    PYTHONPATH=tests python benchmarks/deployment.py [--rounds 3] [--steps 4]

Prints what the codec counted against what the SuperLink's sockets counted, where each round's seconds went, and what a
message costs its process in CPU time.
"""

import argparse
import csv
import json
import os
import tempfile
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
os.environ["HF_HUB_OFFLINE"] = "1"

import psutil  # noqa: E402
from e2e.conftest import Deployment, as_toml  # noqa: E402

from fedkd_flwr.cli.processes import end_all  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            measure(Path(folder), arguments.rounds, arguments.steps)
        finally:
            end_all(folder)


def measure(home: Path, rounds: int, steps: int) -> None:
    defaults = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    config = home / "run-config.toml"
    config.write_text(
        as_toml(
            defaults
            | {
                "num-rounds": rounds,
                "train.local-steps": steps,
                "data.max-test-examples": 64,
                "run.runs-dir": str(home / "runs"),
                "run.name": "run",
            }
        )
    )
    deployment = Deployment(home)
    deployment.superlink()
    nodes = [
        deployment.supernode(
            f"node-{partition}",
            f'partition-id={partition} num-partitions=2 threads=1 run.state-dir="{home / "state"}"',
        )
        for partition in (0, 1)
    ]
    run = deployment.wait("dep", deployment.run(config), seconds=1800)
    assert run["status"] == "finished:completed", deployment.log("superlink")
    report(home / "runs" / "run", run["network-traffic"])
    messages = len(nodes) * (1 + rounds + 1)
    spent = sum(cpu_seconds_of_apps(node.pid) for node in nodes)
    print(f"\nCPU seconds of a ClientApp's process, mean of {messages} messages: {spent / messages:.2f}")


def cpu_seconds_of_apps(supernode: int) -> float:
    """Of all processes that a SuperNode, or the SuperExec below it, has started and seen end."""
    parent = psutil.Process(supernode)
    times = [process.cpu_times() for process in (parent, *parent.children(recursive=True))]
    return sum(t.children_user + t.children_system for t in times)


def report(folder: Path, traffic: dict[str, str]) -> None:
    ledger: Counter[str] = Counter()
    with (folder / "traffic.csv").open() as file:
        for row in csv.DictReader(file):
            ledger[row["direction"]] += int(row["bytes"])
    print(f"{'':10}{'codec bytes':>14}{'on the wire':>14}{'overhead':>10}")
    for name, direction, key in (("up", "up", "inbound-bytes"), ("down", "down", "outbound-bytes")):
        wire = int(traffic[key])
        print(f"{name:10}{ledger[direction]:14,}{wire:14,}{wire / ledger[direction] - 1:10.2%}")
    print("\nseconds per round: the nodes' parts are summed over both nodes, which work at the same time")
    history = json.loads((folder / "history.json").read_text())
    parts = sorted({part for entry in history["rounds"] for part in entry["seconds"]} - {"round"})
    print(f"{'round':>6}{'wall':>8}" + "".join(f"{part:>10}" for part in parts))
    for entry in history["rounds"]:
        cells = "".join(f"{entry['seconds'].get(part, 0):10.2f}" for part in parts)
        print(f"{entry['round']:6}{entry['seconds']['round']:8.1f}{cells}")


if __name__ == "__main__":
    main()
