import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedkd_flwr.cli.preflight import look_for_space, preflight, simulated_nodes
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import ConfigError, DataError, FedKDError, ModelError, StateError

ROOT = Path(__file__).parent.parent.parent

Config = Callable[..., dict[str, Any]]


@pytest.fixture
def fly(run_config: Config) -> Callable[..., list[str]]:
    """Look at a run; what was said."""

    def fly(nodes: int = 2, cpus: int = 1, gpus: float = 0.0, **changes: Any) -> list[str]:
        said: list[str] = []
        preflight(RunConfig.parse(run_config(**changes)), nodes, cpus, gpus, said.append)
        return said

    return fly


def rows(path: Path, *lines: str) -> str:
    path.write_text("\n".join(("text,label,source", *lines, "")))
    return f"csv:{path}"


def test_a_run_that_can_start_passes_in_silence_and_leaves_nothing(
    fly: Callable[..., list[str]], tmp_path: Path, tweets_csv: Path
) -> None:
    assert fly(server_test_data=f"csv:{tweets_csv}") == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"nodes": 1}, ConfigError, "federation.min-train-nodes is 2 but --nodes is 1"),
        ({"cpus": 100_000}, ConfigError, "--cpus-per-node is 100000 but this process may use"),
        ({"gpus": 100_000}, ConfigError, "--gpus-per-node is 100000 but this machine has"),
        ({"device": "cuda"}, ConfigError, "given no GPU: add --gpus-per-node"),
        ({"precision": "fp16"}, FedKDError, "'fp16' but the device is a CPU"),
        ({"dataset": "csv:/none.csv"}, DataError, "none.csv: no such file"),
        ({"text_column": "body"}, DataError, "expected one column 'body'"),
        ({"labels": "x,y"}, DataError, "label"),
        ({"nodes": 300}, DataError, "run fewer nodes"),
        ({"server_test_data": "csv:/none.csv"}, DataError, "data.server-test-data /none.csv: no such file"),
        ({"server_test_data": "csv:/none.csv", "text_column": "body"}, DataError, "data.server-test-data"),
        ({"teacher": "/none"}, ModelError, "there is no folder /none"),
        ({"teachers": "tiny,/none"}, ModelError, "there is no folder /none"),
        ({"student_layers": 9}, ConfigError, "'model.student-layers' is 9"),
    ],
)
def test_what_would_fail_later_fails_here(
    fly: Callable[..., list[str]], tiny_bert: Path, changes: dict[str, Any], error: type[FedKDError], words: str
) -> None:
    changes = {key: str(value).replace("tiny", str(tiny_bert)) if key == "teachers" else value
               for key, value in changes.items()}  # fmt: skip
    with pytest.raises(error, match=words):
        fly(**changes)


def test_what_is_cheap_to_see_is_seen_before_large_libraries_are_imported() -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from fedkd_flwr.cli.main import app; "
        f"run = CliRunner().invoke(app, ['run', {str(ROOT)!r}, '-c', 'data.dataset=\"csv:none.csv\"']); "
        "print(run.exit_code, run.stderr.count('no such file'), "
        "*sorted({'torch', 'transformers', 'datasets', 'pyarrow', 'flwr', 'ray'} & set(sys.modules)))"
    )
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert seen.stdout.split() == ["2", "1"]


def test_the_last_owner_is_looked_at_too(fly: Callable[..., list[str]], tmp_path: Path) -> None:
    """Partitions by an owner are as unlike as their owners."""
    lines = [f"{owner} {number},{number % 2},{owner}" for owner in "abc" for number in range(8)]
    data = rows(tmp_path / "owners.csv", *lines, "alone,1,z")
    changes = {"dataset": data, "partition": "natural", "partition_column": "source"}
    assert fly(nodes=3, **changes) == []
    with pytest.raises(DataError, match="'z' has 1 different examples"):
        fly(nodes=4, **changes)


@pytest.mark.parametrize("key", ["runs_dir", "state_dir"])
def test_a_folder_below_a_file_is_none(fly: Callable[..., list[str]], tmp_path: Path, key: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=rf"{key.replace('_', '-')} is '.*/file/a/b' but .*/file is no folder"):
        fly(**{key: str(tmp_path / "file" / "a" / "b")})


def test_data_too_large_to_be_read_twice_are_left_to_the_nodes(fly: Callable[..., list[str]], tmp_path: Path) -> None:
    with (large := tmp_path / "large.csv").open("wb") as file:
        file.truncate(2**30)
    assert fly(dataset=f"csv:{large}") == ["only the nodes will read the data: `fedkd check` reads them beforehand"]
    assert fly(dataset="hf:org/not-downloaded") != []


def test_teachers_that_the_disk_has_no_room_for(run_config: Config, tmp_path: Path) -> None:
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(2**40)
    config = RunConfig.parse(run_config(teacher=str(tmp_path), method="local"))
    with pytest.raises(StateError, match=r"the teachers of 1000 nodes take 1,024,000\.0 GB there, its disk has"):
        look_for_space(config, simulated_nodes(1000))
    look_for_space(config.model_copy(update={"method": "fedavg"}), simulated_nodes(1000))
