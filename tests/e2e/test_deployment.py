"""The app on a real SuperLink with two SuperNodes."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from support.federation import assert_same
from support.loopback import LoopbackGrid, run_server

from e2e.conftest import Deployment

pytestmark = pytest.mark.e2e


def test_two_supernodes_train_as_one_process_does(
    deployment: Deployment,
    config_file: Callable[..., Path],
    run_config: Callable[..., dict[str, Any]],
    tiny_bert_with_dropout: Path,
    tmp_path: Path,
) -> None:
    """Top-level app modules load on a SuperNode; the student is bit for bit that of the loopback federation.

    One node has a teacher of its own.
    """
    deployment.superlink()
    for partition, teacher in enumerate(("", f' teacher="{tiny_bert_with_dropout}"')):
        state = tmp_path / f"node-{partition}"
        deployment.supernode(
            f"node-{partition}",
            f'partition-id={partition} num-partitions=2 threads=1 state-dir="{state}"{teacher}',
        )
    run = deployment.wait("dep", deployment.run(config_file()), seconds=240)
    assert run["status"] == "finished:completed", deployment.log("superlink")

    folder = tmp_path / "runs" / "run"
    history = json.loads((folder / "history.json").read_text())
    assert [entry["trained"] for entry in history["rounds"]] == [2, 2]
    for partition, dropout in enumerate((0.0, 0.1)):
        (place,) = (tmp_path / f"node-{partition}").glob("*/*/teacher")
        assert (place / "model.safetensors").stat().st_size > 0
        assert json.loads((place / "config.json").read_text())["hidden_dropout_prob"] == dropout

    with (folder / "traffic.csv").open() as file:
        ledger = {"up": 0, "down": 0}
        for row in csv.DictReader(file):
            ledger[row["direction"]] += int(row["bytes"])
    traffic = run["network-traffic"]
    assert int(traffic["inbound-bytes"]) + int(traffic["outbound-bytes"]) > ledger["up"] + ledger["down"]

    nodes: list[dict[str, Any]] = [{"partition-id": i, "num-partitions": 2} for i in range(2)]
    nodes[1]["teacher"] = str(tiny_bert_with_dropout)
    loopback = run_server(LoopbackGrid(run_config(run_name="loopback", state_dir=str(tmp_path / "state")), nodes))
    assert_same(*(load_file(path / "student/model.safetensors") for path in (folder, loopback)))
