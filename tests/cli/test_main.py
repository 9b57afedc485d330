import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fedkd_flwr.cli import main as cli
from fedkd_flwr.cli import shown_run
from fedkd_flwr.cli.child_environment import SCRIPTS
from fedkd_flwr.cli.launcher import Job, Verdict
from fedkd_flwr.cli.processes import Interrupted
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import RunError
from fedkd_flwr.live.channel import Tell
from fedkd_flwr.live.events import Warned
from fedkd_flwr.privacy.leaving import EVALUATE, JOIN, TRAIN
from fedkd_flwr.runtime.cpus import available_cpus

REPOSITORY = Path(__file__).parent.parent.parent

SCORES = {"accuracy": 0.5, "macro-f1": 0.4, "loss": 1.0}
TRAFFIC = {"asked": 3, "trained": 2, "refreshed": 2, "bytes-up": 200_000, "bytes-down": 100_000}
HISTORY = {
    "config": {"task": "text-classification"},
    "sizes": {"teacher-bytes": 30_000_000, "student-bytes": 3_000_000},
    "initial": {"student": None, "teachers": None, "bytes-down": 0},
    "rounds": [{"round": 1, "student": SCORES, "teachers": SCORES, "nodes": {}, "seconds": {}, **TRAFFIC}],
}


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Job]:
    """Stands in for Flower: remembers the job, leaves a history behind, and completes."""
    jobs: list[Job] = []

    def launch(job: Job, tell: Tell, keep: Callable[[str], None]) -> Verdict:
        jobs.append(job)
        folder = Path(str(job.run_config["run.runs-dir"])) / str(job.run_config["run.name"])
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "history.json").write_text(json.dumps(HISTORY))
        keep("INFO: a [line] of the log")
        tell(Warned(text="a [line] for the user"))
        return Verdict(completed=True)

    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *(f"text {i},{i % 2}" for i in range(40)), ""]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shown_run, "launch", launch)
    return jobs


def fedkd(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, arguments)


def check(*arguments: str) -> Result:
    return fedkd("check", str(REPOSITORY), *arguments)


def run(*arguments: str) -> Result:
    return fedkd("run", str(REPOSITORY), "-c", 'data.dataset="csv:rows.csv" data.partition="iid"', *arguments)


def test_run_launches_the_validated_config_and_prints_the_results(launched: list[Job], tmp_path: Path) -> None:
    result = run("--nodes", "4", "-c", "num-rounds=3", "-c", 'run.name="x"', "--timeout", "60")
    assert result.exit_code == 0, result.output
    (job,) = launched
    assert (job.app, job.nodes, job.cpus_per_node, job.timeout) == (REPOSITORY, 4, 1, 60)
    assert (job.run_config["num-rounds"], job.run_config["run.runs-dir"]) == (3, str(tmp_path / "runs"))
    assert job.silence is not None
    assert job.silence > RunConfig.parse(job.run_config).federation.round_timeout_seconds
    assert "fedkd: a [line] for the user\n" in result.stdout and "INFO" not in result.output
    assert (tmp_path / "runs/x.log").read_text() == "INFO: a [line] of the log\n"
    assert "log: runs/x.log" in result.stdout
    assert "400.0" in result.stdout
    assert f"results: {tmp_path}/runs/x" in result.stdout


def test_failed_run_exits_1_with_the_reason_and_how_to_go_on(
    launched: list[Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    complete = shown_run.launch

    def fail(job: Job, tell: Tell, keep: Callable[[str], None]) -> Verdict:
        complete(job, tell, keep)
        return Verdict(False, "the run failed: too few nodes")

    monkeypatch.setattr(shown_run, "launch", fail)
    result = run("-c", 'run.name="x"')
    assert result.exit_code == 1
    assert result.stderr == "fedkd: the run failed: too few nodes\n"
    assert result.stdout.endswith(f"continue it with: fedkd run {REPOSITORY} --resume {tmp_path}/runs/x\n")


def test_a_stopped_run_says_how_to_go_on_with_the_same_share_of_the_machine(
    launched: list[Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    complete = shown_run.launch

    def stop(job: Job, tell: Tell, keep: Callable[[str], None]) -> Verdict:
        complete(job, tell, keep)
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(shown_run, "launch", stop)
    cpus = available_cpus()
    result = run("-c", 'run.name="x"', "--cpus-per-node", str(cpus))
    assert result.exit_code == 128 + signal.SIGTERM
    assert f"kept: round 1 of 6 in {tmp_path}/runs/x, and each node's models\n" in result.stdout
    share = f" --cpus-per-node {cpus}" if cpus > 1 else ""
    assert result.stdout.endswith(f"continue it with: fedkd run {REPOSITORY} --resume {tmp_path}/runs/x{share}\n")


def test_a_run_that_finished_no_round_is_not_said_to_go_on(
    launched: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown_run, "launch", lambda job, tell, keep: Verdict(False, "too few nodes"))
    result = run()
    assert (result.exit_code, result.stderr) == (1, "fedkd: too few nodes\n")
    assert "--resume" not in result.stdout


def test_federation_that_does_not_start_exits_1(launched: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Verdict:
        raise RunError("the SuperLink stopped")

    monkeypatch.setattr(shown_run, "launch", refuse)
    result = run()
    assert (result.exit_code, result.stderr) == (1, "fedkd: the SuperLink stopped\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-c", "num-round=3"], "'num-round' is unknown"),
        (["-c", "num-rounds=0"], "'num-rounds' is 0 but"),
        (["-c", "num-rounds"], "is not key=value"),
        (["--resume", "runs/none"], "runs/none holds no run to resume"),
        (["--nodes", "1"], "federation.min-train-nodes is 2 but --nodes is 1"),
        (["-c", 'data.dataset="csv:missing.csv"'], "missing.csv: no such file"),
        (["-c", "model.student-layers=9"], "'model.student-layers' is 9 but"),
        (["--cpus-per-node", "100000"], "--cpus-per-node is 100000 but this process may use"),
        (["--gpus-per-node", "100000"], "--gpus-per-node is 100000 but this machine has"),
    ],
)
def test_bad_input_exits_2_before_anything_is_started(launched: list[Job], arguments: list[str], words: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("fedkd: ")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert launched == []


def test_check_prints_what_nodes_have_and_writes_what_they_hold_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"text {number},{number % 2}" for number in range(20)]
    (tmp_path / "north.csv").write_text("\n".join(["text,label", *rows, ""]))
    own = 'name="north" data-path="north.csv" labels="0,1"'
    result = check("--node-config", own, "--held-out", "held.json")
    assert result.exit_code == 0, result.output
    assert "north" in result.stdout and "18" in result.stdout
    assert list(json.loads((tmp_path / "held.json").read_text())) == ["north"]


def test_check_says_all_mistakes_and_exits_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of keys, data and models at once, each in a line; nothing is written."""
    monkeypatch.chdir(tmp_path)
    result = check(
        "-c",
        'num-rounds=0 sead=1 model.teacher="./none" data.dataset="csv:none.csv"',
        "--nodes",
        "1",
        "--held-out",
        "held.csv",
    )
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert all(line.startswith("fedkd: ") for line in lines)
    for words in ("'num-rounds'", "'sead'", "--nodes is 1", "none.csv: no such file", "there is no folder"):
        assert sum(words in line for line in lines) == 1, words
    assert len(lines) == 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", [False, True])
def test_version_names_what_a_report_of_a_fault_needs(module: bool) -> None:
    command = [sys.executable, "-m", "fedkd_flwr"] if module else [str(SCRIPTS / "fedkd")]
    out = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
    assert out.startswith(f"fedkd {version('fedkd-flwr')} (flwr {version('flwr')}, torch ")
    assert out.count("\n") == 1


def test_the_shell_completes_commands() -> None:
    asked = {"_FEDKD_COMPLETE": "complete_bash", "COMP_WORDS": "fedkd ", "COMP_CWORD": "1"}
    out = subprocess.run([str(SCRIPTS / "fedkd")], capture_output=True, text=True, env=os.environ | asked).stdout
    assert {"run", "show"} <= set(out.split())


def test_show_prints_the_table_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "history.json").write_text(json.dumps(HISTORY))
    result = fedkd("show", str(tmp_path))
    assert result.exit_code == 0
    assert "400.0" in result.stdout
    assert "…" not in result.stdout, "a table in a pipe is as wide as it takes"


def test_show_without_a_history_is_one_line(tmp_path: Path) -> None:
    result = fedkd("show", str(tmp_path))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"fedkd: {tmp_path} has no results yet")


def test_silo_check_says_all_that_a_policy_does_not_allow(tmp_path: Path) -> None:
    policy, run = str(REPOSITORY / "docker/policy.toml"), tmp_path / "run.toml"
    run.write_text('data.labels = "no,yes"\n')
    allowed = fedkd("silo", "check", policy, str(run), "--app", str(REPOSITORY))
    assert allowed.exit_code == 0 and "allowed" in allowed.stdout, allowed.output
    run.write_text('train.learning-rate = 1e4\ntrain.max-grad-norm = 1e-9\nnum-round = 1\ncodec.kind = "dense"\n')
    refused = fedkd("silo", "check", policy, str(run), "--app", str(REPOSITORY))
    assert refused.exit_code == 2 and len(refused.stderr.splitlines()) == 4, refused.output
    for word in (
        "'train.learning-rate'",
        "'train.max-grad-norm'",
        "num-round",
        "'codec.kind'",
        "update.min-compression",
    ):
        assert word in refused.stderr
    assert fedkd("silo", "check", str(tmp_path / "none.toml"), str(run), "--app", str(REPOSITORY)).exit_code == 2


def test_silo_preview_prints_each_field_that_would_leave_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_bert: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"secret text {number},{'no' if number % 3 else 'yes'}" for number in range(400)]
    (tmp_path / "north.csv").write_text("\n".join(["text,label", *rows, ""]))
    run = f'model.teacher="{tiny_bert}" model.student-layers=2 data.labels="yes,no" codec.budget="1kB" num-rounds=2'
    before = sorted(tmp_path.rglob("*"))
    result = fedkd(
        "silo", "preview", run, "--app", str(REPOSITORY), "--node-config", 'name="north" data-path="north.csv"'
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert sorted(tmp_path.rglob("*")) == before
    for field in (*JOIN, *TRAIN, *EVALUATE):
        assert f"  {field}" in result.stdout, field
    for told in ('node = "north"', 'labels = ["yes", "no"]', "train_examples = 360", "; 1,000 bytes at most, of "):
        assert told in result.stdout
    assert "secret" not in result.stdout and str(tmp_path) not in result.stdout
    refused = fedkd(
        "silo", "preview", run + " train.local-steps=1", "--app", str(REPOSITORY),
        "--node-config", 'name="north" data-path="north.csv"',
    )  # fmt: skip
    assert refused.exit_code == 2 and "training.min-examples" in refused.output
