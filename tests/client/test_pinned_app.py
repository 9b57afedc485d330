"""The process of a pinned node as far as it needs no SuperNode; tests/e2e/test_deployment.py has one."""

import hashlib
import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
from flwr.app import Context, Message, RecordDict

from fedkd_flwr.client import pinned_app
from fedkd_flwr.client.app import app
from fedkd_flwr.client.pinned_app import Gate, main
from fedkd_flwr.privacy.approved import APPROVED, approve, install
from fedkd_flwr.records import REFUSED

ARCHIVE = b"the bytes of an app"
HASH = hashlib.sha256(ARCHIVE).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    install(tmp_path / "bin")
    return tmp_path / "bin"


def refusal(gate: Gate) -> str:
    message = Message(RecordDict(), dst_node_id=1, message_type="query")
    message.metadata.__dict__["_message_id"] = "m"
    node = {"name": "north"}
    context = Context(run_id=1, node_id=1, node_config=node, state=RecordDict(), run_config={})
    reply = gate.load("publisher/name", "1.0.0", HASH)(message=message, context=context)  # type: ignore[call-arg]
    assert reply.has_error() and reply.error.code == REFUSED
    return reply.error.reason


def test_only_the_bytes_of_an_approved_app_pass_and_the_installed_one_answers(folder: Path) -> None:
    """What the run says its app's hash is counts for nothing."""
    approve(folder, HASH)
    gate = Gate(folder / APPROVED)
    assert "approved apps" in refusal(gate)
    gate.receive(ARCHIVE + b".", skip_prompt=True)
    assert "approved apps" in refusal(gate)
    gate.receive(ARCHIVE, skip_prompt=True)
    assert gate.load("publisher/name", "1.0.0", HASH) is app


def test_a_list_that_is_missing_or_open_to_others_lets_nothing_pass(folder: Path, tmp_path: Path) -> None:
    approve(folder, HASH)
    for place in (tmp_path / "nothing", folder / APPROVED):
        folder.chmod(0o777)
        gate = Gate(place)
        gate.receive(ARCHIVE)
        reason = refusal(gate)
        assert reason.startswith("node north cannot read which apps are approved") and str(tmp_path) not in reason


def test_a_client_app_of_somebody_else_does_not_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    approve(folder, HASH)
    gate = Gate(folder / APPROVED)
    gate.receive(ARCHIVE)
    theirs = ModuleType("client_app")
    theirs.app = lambda message, context: pytest.fail("it answers")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "client_app", theirs)
    assert gate.load("publisher/name", "1.0.0", HASH) is app


def test_an_installed_app_that_is_broken_is_not_told_of_in_full(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    approve(folder, HASH)
    gate = Gate(folder / APPROVED)
    gate.receive(ARCHIVE)
    monkeypatch.setitem(sys.modules, "fedkd_flwr.client.app", None)
    assert refusal(gate).endswith("cannot load its installed app: its own log says more")


@pytest.mark.parametrize("name", ["install_from_fab", "install_app_dependencies", "get_load_client_app_fn"])
def test_a_flower_that_loads_apps_in_another_way_runs_none(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = importlib.import_module("flwr.supernode.runtime.run_clientapp")
    for each in ("install_from_fab", "install_app_dependencies", "get_load_client_app_fn"):
        monkeypatch.setattr(runtime, each, getattr(runtime, each))
    monkeypatch.delattr(runtime, name)
    monkeypatch.setattr(pinned_app, "flwr_clientapp", lambda: pytest.fail("it runs"))
    with pytest.raises(SystemExit, match=name):
        main(str(folder / APPROVED))
