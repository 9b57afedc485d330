"""docker/ as far as it can be held without containers; tests/e2e/docker.sh runs it for real."""

import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.privacy.approved import APPROVED, app_hash, approved
from fedkd_flwr.runtime.disk import write_json
from fedkd_flwr.tracking.past_run import FORMAT

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "docker"
TEXT = (DOCKER / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
MODULES = sorted((ROOT / "fedkd_flwr").rglob("*.py"))
SILOS = ("north", "south", "west")

FAKE_DOCKER = """#!/usr/bin/env bash
# Notes each command; the SuperExec has the run $LEFT, if any; the operator's command ends with $CODE.
echo "$*" >> "$NOTES"
case "$*" in
*"exec -T superexec"*) echo 'num-rounds = 3' ;;
*" ps "*) echo "north healthy"; echo "west unhealthy" ;;
*"exec -T operator"*) cat > /dev/null; [ "$CODE" != wait ] || sleep 60; exit "$CODE" ;;
*" cp "*) [ -n "$LEFT" ] && mkdir -p "runs/$LEFT" && echo '{}' > "runs/$LEFT/history.json" ;;
esac
"""


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_is_bounded_and_has_no_rights(service: str) -> None:
    container = SERVICES[service]
    assert float(re.sub(r"\$\{\w+:-(.*)\}", r"\1", str(container["cpus"]))) <= 2, "more cores than a small machine has"
    assert container["mem_limit"] == container["memswap_limit"]
    assert container["pids_limit"] <= 512
    assert container["logging"]["driver"] == "json-file"
    assert set(container["logging"]["options"]) == {"max-size", "max-file"}
    assert all(re.fullmatch(r"/\S+:size=\d+m", mount) for mount in container["tmpfs"])
    assert container["read_only"] and container["cap_drop"] == ["ALL"] and container["init"]
    assert container["security_opt"] == ["no-new-privileges=true"]
    assert container["healthcheck"]["test"][0] == "CMD" and "ports" not in container


def test_a_federation_takes_all_its_names_and_files_from_its_project_and_folder() -> None:
    """Two on one machine, such as a user's and the test's, have nothing in common."""
    assert {service["image"] for service in SERVICES.values()} == {"${COMPOSE_PROJECT_NAME}-flwr"}
    assert not any("container_name" in service or "profiles" in service for service in SERVICES.values())
    assert all(not (body or {}).get("name") for kind in ("networks", "volumes") for body in COMPOSE[kind].values())
    mounts = [mount for service in SERVICES.values() for mount in service["volumes"]]
    files = [body["file"] for body in COMPOSE["secrets"].values()]
    folders = [mount for mount in mounts if mount.split(":")[0] not in COMPOSE["volumes"]]
    assert len(folders) == len(SILOS)
    assert all(path.startswith("${FEDERATION:-.}/") for path in files + folders)


def test_the_test_of_containers_has_a_project_and_a_folder_of_its_own() -> None:
    script = (ROOT / "tests/e2e/docker.sh").read_text()
    assert re.search(r"^FEDERATION=\$\(mktemp -d\)$", script, re.M)
    assert re.search(r"^export FEDERATION COMPOSE_PROJECT_NAME=fedkd-test-", script, re.M)


def test_the_image_lacks_only_what_simulates() -> None:
    """Each pattern that the Dockerfile takes out of the dependencies is still one, and no app needs it at its start."""
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert sum("[simulation]" in line for line in dependencies) == 1
    assert sum(line.startswith("flwr-datasets") for line in dependencies) == 1
    imports = [re.findall(r"^( *)(?:from|import) flwr_datasets", path.read_text(), re.M) for path in MODULES]
    assert sum(map(len, imports)) == 1 and all(indent for found in imports for indent in found)


def test_a_silo_runs_the_app_of_its_image_and_no_other(tmp_path: Path) -> None:
    """The image's last step, elsewhere, approves the app that the operator submits; its SuperNode gets the commands."""
    step = re.findall(r"^RUN (.*silo approve.*)", (DOCKER / "Dockerfile").read_text().replace("\\\n", ""), re.M)[-1]
    blocked = tmp_path / "blocked"  # what the image lacks
    blocked.mkdir()
    for package in ("ray", "flwr_datasets", "matplotlib"):
        (blocked / f"{package}.py").write_text("raise ImportError")
    for path, place in (("/pinned", tmp_path / "pinned"), ("/app", ROOT), ("python", Path(sys.executable))):
        step = step.replace(path, str(place))
    done = shell("bash", "-c", step, folder=tmp_path, PYTHONPATH=f"{blocked}:{ROOT}")
    assert done.returncode == 0, done.stderr
    assert approved(tmp_path / "pinned" / APPROVED) == [app_hash(ROOT)]

    started = (DOCKER / "silo.sh").read_text().split("\nstopped=\n")[1]
    assert re.match(r"export PATH=/pinned:\$PATH.*\nflower-supernode ", started)
    assert "silo.sh" in TEXT and TEXT.count("/pinned") == 0, "the server's processes are Flower's own"


def shell(*command: str | Path, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env={**os.environ, "FEDERATION": str(folder), "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )


def demo(folder: Path, step: int) -> "subprocess.CompletedProcess[str]":
    return shell(sys.executable, DOCKER / "demo_data.py", str(step), folder=folder)


def data(folder: Path) -> dict[str, bytes]:
    return {silo: path.read_bytes() for silo in SILOS if (path := folder / "data" / silo / "examples.csv").exists()}


def test_demo_data_never_replaces_a_file_and_writes_all_or_none(tmp_path: Path) -> None:
    theirs = tmp_path / "data/south/examples.csv"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("text,label\nours,positive\n")
    done = demo(tmp_path, 500)
    assert done.returncode == 1 and str(theirs) in done.stderr and len(done.stderr.splitlines()) == 1
    assert data(tmp_path) == {"south": b"text,label\nours,positive\n"}

    theirs.unlink()
    assert demo(tmp_path, 500).returncode == 0
    written = data(tmp_path)
    assert set(written) == set(SILOS)
    assert demo(tmp_path, 1000).returncode == 1
    assert data(tmp_path) == written
    assert all((tmp_path / "data" / silo / "examples.csv").stat().st_mode & 0o004 for silo in SILOS)


def test_prepare_names_the_data_that_a_container_could_not_read(tmp_path: Path) -> None:
    done = shell(DOCKER / "prepare.sh", folder=tmp_path)
    assert done.returncode == 0 and all(f"data/{silo}/examples.csv: to come" in done.stdout for silo in SILOS)
    policies = {silo: tmp_path / "data" / silo / "policy.toml" for silo in SILOS}
    assert {path.read_bytes() for path in policies.values()} == {(DOCKER / "policy.toml").read_bytes()}
    assert all(path.stat().st_mode & 0o004 for path in policies.values())
    policies["west"].write_text("[runs]\nmax-rounds = 3\n")
    secrets = {path.name: path.read_bytes() for path in (tmp_path / "secrets").iterdir()}
    assert {Path(body["file"]).name for body in COMPOSE["secrets"].values()} <= set(secrets)
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0 and (tmp_path / "data").stat().st_mode & 0o077 == 0

    files = {silo: tmp_path / "data" / silo / "examples.csv" for silo in SILOS}
    (tmp_path / "elsewhere.csv").write_text("text,label\n")
    files["north"].write_text("text,label\n")
    files["north"].chmod(0o644)
    files["south"].write_text("text,label\n")
    files["south"].chmod(0o600)
    files["west"].symlink_to(tmp_path / "elsewhere.csv")
    done = shell(DOCKER / "prepare.sh", folder=tmp_path)
    said = done.stderr.splitlines()
    assert done.returncode == 1 and len(said) == 2
    assert "south/examples.csv" in said[0] and "chmod" in said[0] and "west/examples.csv" in said[1]
    assert policies["west"].read_text() == "[runs]\nmax-rounds = 3\n", "its owner's"
    files["south"].chmod(0o644)
    files["west"].unlink()
    assert shell(DOCKER / "prepare.sh", folder=tmp_path).returncode == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "secrets").iterdir()} == secrets


def run_config(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return shell(sys.executable, DOCKER / "run_config.py", *arguments, folder=folder)


@pytest.fixture
def past(tmp_path: Path) -> RunConfig:
    """The config of run `first` below a folder, which has finished two of its three rounds."""
    done = run_config(tmp_path, "first", 'data.labels="no,yes" train.learning-rate=3e-5 num-rounds=3')
    assert done.returncode == 0, done.stderr
    config = RunConfig.parse(tomllib.loads(done.stdout))
    folder = tmp_path / "runs/first"
    (folder / "checkpoints/00000001").mkdir(parents=True)
    write_json(folder / "config.json", config.as_run_config())
    write_json(folder / "history.json", {"finished": False, "rounds": [{}, {}]})
    state = {"format": FORMAT, "lineage": "0", "round": 2, "partitions": None, "taken": {"north": 2}}
    write_json(folder / "checkpoints/00000001/state.json", state)
    return config


def test_a_run_and_its_continuation_have_the_same_config(past: RunConfig, tmp_path: Path) -> None:
    assert (past.data.labels, past.train.learning_rate, past.num_rounds, past.run.name) == ("no,yes", 3e-5, 3, "first")
    assert past.run.runs_dir == str(tmp_path / "runs")
    for overrides, rounds in ([], 3), (["num-rounds=5"], 5):
        done = run_config(tmp_path, "--resume", "first", *overrides)
        assert done.returncode == 0, done.stderr
        resumed = RunConfig.parse(tomllib.loads(done.stdout))
        assert resumed == past.changed(num_rounds=rounds, run={"resume": str(tmp_path / "runs/first")})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["first"], ["'first' is taken", "docker/run.sh --resume first"]),
        (["--resume", "second"], ["second", "are: first"]),
        (["--resume", "first", "num-rounds=1"], ["num-rounds", "2"]),
        (["--resume", "first", "seed=1"], ["seed"]),
        (["second", "num-round=3"], ["num-round"]),
        (["second", "num-rounds=0"], ["num-rounds"]),
        (["second", 'run.runs-dir="elsewhere"'], ["run.runs-dir", "docker/run.sh"]),
        (["--resume", "first", 'run.resume="elsewhere"'], ["resume", "docker/run.sh"]),
    ],
)
def test_what_the_server_would_refuse_is_refused_before_in_one_line(
    past: RunConfig, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    done = run_config(tmp_path, *arguments)
    assert done.returncode == 1 and not done.stdout
    assert len(done.stderr.splitlines()) == 1 and all(word in done.stderr for word in words), done.stderr


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """A folder to run docker/run.sh in, with a `docker` that only notes what it was asked for."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/docker").write_text(FAKE_DOCKER)
    (tmp_path / "bin/docker").chmod(0o755)
    return tmp_path


def run(folder: Path, *arguments: str, code: int = 0, left: str = "") -> "subprocess.CompletedProcess[str]":
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    notes = str(folder / "notes")
    return shell(DOCKER / "run.sh", *arguments, folder=folder, PATH=path, NOTES=notes, CODE=str(code), LEFT=left)


def test_a_failed_run_is_fetched_and_its_exit_code_stays(docker: Path) -> None:
    done = run(docker, "first", code=7, left="first")
    assert done.returncode == 7 and (docker / "runs/first/history.json").exists()
    assert "docker/run.sh --resume first" in done.stderr and "west is unhealthy" in done.stderr
    assert run(docker, "--resume", "first", left="first").returncode == 0
    assert run(docker, "nothing", left="").returncode == 1


def test_a_name_that_is_taken_here_is_refused_before_the_submit(docker: Path) -> None:
    (docker / "runs/first").mkdir(parents=True)
    done = run(docker, "first", left="first")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "--resume first" in done.stderr
    assert not (docker / "notes").exists()


def test_an_interrupt_ends_the_log_and_says_where_the_results_will_be(docker: Path) -> None:
    environment = {**os.environ, "PATH": f"{docker / 'bin'}:{os.environ['PATH']}", "NOTES": str(docker / "notes")}
    process = subprocess.Popen(
        [DOCKER / "run.sh", "first"],
        cwd=docker,
        env={**environment, "CODE": "wait", "LEFT": ""},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a CI may have pytest ignore it
    )
    while not (docker / "notes").exists() or "operator" not in (docker / "notes").read_text():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130 and "cp superexec:/var/lib/fedkd/runs/first runs/" in said


@pytest.mark.parametrize("arguments", [[], ["--resume"], ["a", "b", "c"], ["../a"], ["a b"], ["-x"], [""]])
def test_run_needs_a_name(docker: Path, arguments: list[str]) -> None:
    assert run(docker, *arguments).returncode == 2
    assert not (docker / "notes").exists()


def test_a_silo_has_the_policy_in_its_folder() -> None:
    """It is mounted with the data, read-only."""
    script = (DOCKER / "silo.sh").read_text()
    assert "policy=/data/policy.toml" in script and 'policy=\\"$policy\\"' in script
    for silo in SILOS:
        assert f"${{FEDERATION:-.}}/data/{silo}:/data:ro" in SERVICES[silo]["volumes"]
