"""The demo's tweets as the files of three silos, docker/data/SILO/examples.csv: each has the tweets of two sources.

usage: demo_data.py [STEP]     every STEP-th tweet, for a quick try
"""

import sys
from pathlib import Path

from pyarrow import csv

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from fedkd_flwr.data.tweets import SOURCES, tweets  # noqa: E402

SILOS = ("north", "south", "west")


def main() -> None:
    step = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    table = tweets()
    table = table.take(list(range(0, len(table), step)))
    owners = [SILOS[list(SOURCES).index(source) % len(SILOS)] for source in table["source"].to_pylist()]
    for silo in SILOS:
        rows = [owner == silo for owner in owners]
        path = HERE / "data" / silo / "examples.csv"
        csv.write_csv(table.filter(rows), path)
        print(f"{path}: {sum(rows)} tweets")


if __name__ == "__main__":
    main()
