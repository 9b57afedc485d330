"""`fedkd export`: what it writes is the run's model, whatever is left of the run's end."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from support.federation import Config, assert_same, history, nodes
from support.loopback import LoopbackGrid, run_server
from typer.testing import CliRunner

from fedkd_flwr.cli.main import app
from fedkd_flwr.models.export import load_classifier

SHARES = {
    "model.architecture": "nested",
    "train.logit-adjustment": "auto",
    "data.partition": "dirichlet",
    "model.shared-layers": 4,
    "run.keep-checkpoints": 3,
}


@pytest.fixture(scope="module")
def finished(tiny_run: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rounds whose whole teacher travels, and whose labels differ between its nodes."""
    place = tmp_path_factory.mktemp("finished")
    folders = {"run.runs-dir": str(place / "runs"), "run.state-dir": str(place / "state")}
    return run_server(LoopbackGrid(tiny_run | SHARES | folders, nodes(2)))


def export(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["export", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def weights(folder: Path) -> dict[str, Any]:
    return dict(load_file(folder / "model.safetensors"))


def test_a_run_without_its_folders_exports_them_again(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run, symlinks=True)
    before = {path.name: path.read_bytes() for model in ("student", "teacher") for path in (run / model).iterdir()}
    for model in ("student", "teacher"):
        shutil.rmtree(run / model)
    said = export(run)
    assert [line.split()[-1] for line in said.splitlines()] == [str(run / "student"), str(run / "teacher")]
    assert {path.name: path.read_bytes() for m in ("student", "teacher") for path in (run / m).iterdir()} == before
    export(run)
    assert load_classifier(run / "student").config.num_hidden_layers == 2


def test_an_earlier_round_goes_where_it_is_asked_for(finished: Path, tmp_path: Path) -> None:
    export(finished, "--round", 1, "--out", tmp_path / "first")
    first = [json.loads((path / "state.json").read_text()) for path in sorted((finished / "checkpoints").iterdir())]
    (number,) = [i for i, state in enumerate(first) if state["round"] == 1 and state["version"] == 1]
    held = load_file(sorted((finished / "checkpoints").iterdir())[number] / "student.safetensors")
    shipped = weights(tmp_path / "first/student")
    assert_same(
        {name: shipped[name] for name in held if name in shipped}, {n: t for n, t in held.items() if n in shipped}
    )
    assert "Rounds: 1\n" in (tmp_path / "first/student/README.md").read_text()
    assert "no checkpoint of round 7, only of" in export(finished, "--round", 7, code=2)


def test_shares_of_a_node_make_exactly_the_model_that_it_has_exported(finished: Path, tmp_path: Path) -> None:
    state = Path(json.loads((finished / "config.json").read_text())["run.state-dir"]) / history(finished)["lineage"]
    mine = state / "partition-1"
    asked = json.loads((mine / "student/config.json").read_text())["head_label_shares"]
    export(finished, "--out", tmp_path / "there", "--label-shares", ",".join(map(repr, asked)))
    for model in ("student", "teacher"):
        assert_same(weights(tmp_path / "there" / model), weights(mine / model))
        shipped = json.loads((tmp_path / "there" / model / "config.json").read_text())
        assert shipped["head_label_shares"] == shipped["label_shares"] == asked
    all_nodes = history(finished)["label-shares"]
    export(finished, "--out", tmp_path / "same", "--label-shares", ",".join(map(repr, all_nodes)))
    assert_same(weights(tmp_path / "same/student"), weights(finished / "student"))
    assert "2 label shares are given, expected one for each of the 3" in export(
        finished, "--out", tmp_path, "--label-shares", "0.5,0.5", code=2
    )
    for wrong in ("50,50,20", "0,0.5,0.5", "a,b,c", "0.2;0.8"):
        assert "--label-shares is" in export(finished, "--label-shares", wrong, code=2)


def test_what_cannot_be_exported_is_one_line(finished: Path, tmp_path: Path, run_config: Config) -> None:
    assert "holds no run" in export(tmp_path / "nowhere", code=2)
    (tmp_path / "student").mkdir()
    (tmp_path / "student/thesis.txt").write_text("mine")
    assert "is no exported model" in export(finished, "--out", tmp_path, code=2)
    assert (tmp_path / "student/thesis.txt").read_text() == "mine"
    alone = run_server(LoopbackGrid(run_config(method="local", num_rounds=1), nodes(2)))
    assert "shares no model (method 'local')" in export(alone, code=2)


def test_the_card_says_what_was_done_with_what_and_how_good_it_is(finished: Path, tiny_bert: Path) -> None:
    text = (finished / "student/README.md").read_text()
    board = history(finished)["rounds"][-1]
    assert f"this student, mean over the nodes | {' | '.join(f'{v:.3f}' for v in board['student'].values())} |" in text
    for said in (
        "Method: FedKD",
        "Rounds: 2\n",
        "Outputs: negative, neutral, positive",
        "| `model.shared-layers` | `4` |",
    ):
        assert said in text
    assert f"| `model.teacher` | `{tiny_bert.name}` |" in text and str(tiny_bert.parent) not in text
    assert ModelCard.load(finished / "student/README.md").data.pipeline_tag == "text-classification"
    assert "Method: FedKD" in (finished / "teacher/README.md").read_text()
    titles = [data["title"] for data in history(finished)["data"].values()]
    assert f"Data: {', '.join(dict.fromkeys(titles))}\n" in text
