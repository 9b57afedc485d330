import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import csv, parquet
from support.config import keys

from fedkd_flwr.config.groups import Value
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.data import DataSettings

Rows = list[dict[str, Any]]


@pytest.fixture(scope="session")
def configure(defaults: dict[str, Any]) -> Callable[..., DataSettings]:
    """What the default run reads data by, with some keys changed: configure(test_fraction=0.5)."""

    def build(**changes: Value) -> DataSettings:
        return DataSettings.of(RunConfig.parse(defaults | keys(**changes)))

    return build


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Rows], str]:
    """Write rows to a file of the kind that its name tells; returns its path."""

    def build(name: str, rows: Rows) -> str:
        path = tmp_path / name
        table = pa.Table.from_pylist(rows)
        match path.suffix:
            case ".csv" | ".tsv":
                csv.write_csv(table, path, csv.WriteOptions(delimiter="\t" if path.suffix == ".tsv" else ","))
            case ".jsonl":
                path.write_text("\n".join(json.dumps(row) for row in rows))
            case ".json":
                path.write_text(json.dumps(rows))
            case ".parquet":
                parquet.write_table(table, path)
        return str(path)

    return build
