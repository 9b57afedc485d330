"""The demo's tweets as the files of three silos, docker/data/SILO/examples.csv: each has the tweets of two sources.

FEDERATION is another folder than docker/, as for prepare.sh. Files that hold anything else are left as they are.

usage: demo_data.py [STEP]     every STEP-th tweet, for a quick try
"""

import os
import sys
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from fedkd_flwr.data.tweets import SOURCES, tweets  # noqa: E402

SILOS = ("north", "south", "west")


def shares(step: int) -> "dict[str, pa.Table]":
    """Silo -> its tweets, of every `step`-th."""
    table = tweets()
    table = table.take(list(range(0, len(table), step)))
    owners = [SILOS[list(SOURCES).index(source) % len(SILOS)] for source in table["source"].to_pylist()]
    return {silo: table.filter([owner == silo for owner in owners]) for silo in SILOS}


def as_csv(table: "pa.Table") -> bytes:
    """The table as a csv file."""
    sink = pa.BufferOutputStream()
    csv.write_csv(table, sink)
    return sink.getvalue().to_pybytes()


def main() -> None:
    """Write the three files, or none where one of them holds anything else."""
    tables = shares(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    folder = Path(os.environ.get("FEDERATION") or HERE) / "data"
    files = {folder / silo / "examples.csv": as_csv(table) for silo, table in tables.items()}
    taken = [str(path) for path, content in files.items() if os.path.lexists(path) and path.read_bytes() != content]
    if taken:
        sys.exit(f"demo_data.py: nothing written, other data are in {', '.join(taken)}: move them away first")
    for (path, content), table in zip(files.items(), tables.values(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(content)
            path.chmod(0o644)  # the containers' user is another than this one
        print(f"{path}: {len(table)} tweets")


if __name__ == "__main__":
    main()
