"""Methods, budgets and means through the real apps."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message
from safetensors.torch import load_file
from support.federation import Config, assert_same, history, nodes, silo, student
from support.loopback import LoopbackGrid, run_server

from fedkd_flwr.client.caches import Caches
from fedkd_flwr.client.dataset import Prepared
from fedkd_flwr.codec import EncodedUpdate
from fedkd_flwr.config.methods import METHODS
from fedkd_flwr.config.node_config import config_at_node
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.distillation import Rate, Schedule, Single, schedule
from fedkd_flwr.messages import TrainReply, TrainRequest
from fedkd_flwr.models.build import build_pair
from fedkd_flwr.models.export import load_classifier
from fedkd_flwr.records import from_records
from fedkd_flwr.runtime.device import choose_device
from fedkd_flwr.tasks.evaluation import evaluate

LABELS = ("negative", "neutral", "positive")


def test_an_update_that_was_lost_is_sent_again_with_error_feedback(
    run_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In round 3 the node learns nothing new: what it sends and keeps is what it kept and what was lost in round 2."""
    changes = {"num_rounds": 3, "codec": "budget", "budget": "6x", "error_feedback": "up", "min_train_nodes": 1}
    raw = run_config(round_timeout_seconds=1, **changes)
    grid = LoopbackGrid(raw, nodes(2))
    owed: dict[str, torch.Tensor] = {}
    accounted: dict[str, torch.Tensor] = {}

    rates = Schedule.rates

    def no_rates(*arguments: Any) -> dict[str, Rate]:
        return {name: Rate(1e-15 * rate.full) for name, rate in rates(*arguments).items()}

    def lose(message: Message, deliver: Callable[[], Message]) -> Message | None:
        if message.metadata.message_type != "train" or message.metadata.dst_node_id != 101:
            return deliver()
        round = from_records(TrainRequest, message.content).round
        with monkeypatch.context() as patch:
            if round == 3:
                patch.setattr(Schedule, "rates", no_rates)
            reply = deliver()
        decoded = EncodedUpdate.from_bytes(from_records(TrainReply, reply.content).update).decode()
        (path,) = (tmp_path / "state").glob("*/partition-1/0*/residual.safetensors")
        total = {name: tensor + decoded[name] for name, tensor in load_file(path).items()}
        if round == 2:
            owed.update(total)
            return None
        accounted.update(total)
        return reply

    grid.fault = lose
    run_server(grid)
    assert accounted.keys() == owed.keys()
    for name, tensor in owed.items():
        assert torch.allclose(accounted[name], tensor, atol=1e-6), name
    assert max(float(tensor.abs().max()) for tensor in owed.values()) > 1e-3


@pytest.mark.parametrize(("budget", "limits"), [("8x", None), ("900B", [900] * 3), ("3kB/run", [1000] * 3)])
def test_no_update_is_over_its_budget(run_config: Config, budget: str, limits: list[int] | None) -> None:
    changes = {"num_rounds": 3, "codec": "budget", "budget": budget}
    folder = run_server(LoopbackGrid(run_config(**changes), nodes(2)))
    size = history(folder)["sizes"]["student-bytes"]
    with (folder / "traffic.csv").open() as file:
        rows = list(csv.DictReader(file))
    for direction in ("up", "down"):
        for round in (1, 2, 3):
            for node in ("partition-0", "partition-1"):
                key = (str(round), direction, node)
                sent = sum(int(row["bytes"]) for row in rows if (row["round"], row["direction"], row["node"]) == key)
                limit = limits[round - 1] if limits else size // 8
                assert 0.8 * limit < sent <= limit


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_nested_pair_runs_and_resumes_like_any_other(
    run_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """Only trunk and exit head travel; a teacher is exported with the trunk that the server last sent, and its share
    of what it had made of the trunk before: all of it, as rates have fallen to nothing."""
    changes = {"architecture": "nested", "num_rounds": 2, "energy_end": 0.95, "teacher_own_share": share}
    changes["learning_rate_decay"] = "staged"
    monkeypatch.setattr(schedule, "_EARLY", 3)  # the steps of the first round
    straight = run_server(LoopbackGrid(run_config(run_name="straight", **changes), nodes(2)))
    changes["num_rounds"] = 1
    folder = run_server(LoopbackGrid(run_config(**changes), nodes(2)))
    changes["num_rounds"] = 2
    run_server(LoopbackGrid(run_config(resume=str(folder), **changes), nodes(2)))
    expected = student(straight)
    assert not any("layer.2." in name or "layer.3." in name for name in expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in student(folder).items())
    found = history(folder)
    exported = list((tmp_path / "state" / found["lineage"]).glob("*/teacher/model.safetensors"))
    assert len(exported) == 2
    for path in exported:
        teacher = load_file(path)
        trunk = [name for name in expected if ".layer." in name]
        (tied,) = path.parent.parent.glob("*/tied.safetensors")
        assert any("layer.3." in name for name in teacher)
        own = load_file(tied)
        if not share:
            assert not own and trunk and all(torch.equal(teacher[name], expected[name]) for name in trunk)
            continue
        assert trunk and all(torch.equal(teacher[name], expected[name].lerp(own[name], share)) for name in trunk)
        assert not any(torch.equal(own[name], expected[name]) for name in trunk if name.endswith("dense.weight"))


def test_a_teacher_scores_what_its_export_scores(
    run_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it keeps two thirds of its own of the layers that travel."""
    monkeypatch.setattr(schedule, "_EARLY", 3)  # the steps of the first round
    raw = run_config(
        architecture="nested", num_rounds=2, learning_rate_decay="staged", teacher_own_share=2 / 3, device="cpu"
    )
    found = history(run_server(LoopbackGrid(raw, nodes(2))))
    for node_config in nodes(2):
        own = Prepared(config_at_node(RunConfig.parse(raw), node_config), node_config, Caches())
        teacher = load_classifier(tmp_path / "state" / found["lineage"] / own.name / "teacher")
        alone = Single(teacher, shared=False)
        scores = evaluate(alone, own.task, own.examples.test, 64, choose_device("cpu", "fp32"))
        assert scores["teacher"] == pytest.approx(found["rounds"][-1]["nodes"][own.name]["teacher"], rel=1e-4)


@pytest.mark.parametrize("shared_layers", [3, 4])
def test_layers_of_a_teacher_that_travel_are_the_same_everywhere(
    run_config: Config, tmp_path: Path, shared_layers: int
) -> None:
    """With all of them the teacher is one, and the server has it, too."""
    changes = {"architecture": "nested", "num_rounds": 2, "energy_end": 0.95, "shared_layers": shared_layers}
    straight = run_server(LoopbackGrid(run_config(run_name="straight", **changes), nodes(2)))
    folder = run_server(LoopbackGrid(run_config(**changes | {"num_rounds": 1}), nodes(2)))
    run_server(LoopbackGrid(run_config(resume=str(folder), **changes), nodes(2)))
    expected = student(straight)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in student(folder).items())
    lineage = tmp_path / "state" / history(folder)["lineage"]
    one, other = (load_file(path) for path in sorted(lineage.glob("*/teacher/model.safetensors")))
    same = {name for name in one if torch.equal(one[name], other[name])}
    trained = {name for name in one if ".layer." in name or name.startswith("head.")}
    assert {name for name in trained if f"teacher.{name}" in expected or name in expected} - same <= {
        "head.weight", "head.bias"
    }  # fmt: skip
    assert (trained <= same) == (shared_layers == 4) == (folder / "teacher").is_dir()
    if shared_layers == 4:
        at_server = load_file(folder / "teacher" / "model.safetensors")
        assert all(torch.equal(one[name], at_server[name]) for name in one)


def test_the_server_scores_the_student_on_data_of_its_own(run_config: Config, tweets_csv: Path) -> None:
    found = history(run_server(LoopbackGrid(run_config(server_test_data=f"csv:{tweets_csv}"), nodes(2))))
    assert all(0 < entry["server"]["accuracy"] <= 1 for entry in found["rounds"])


def test_uniform_and_weighted_means_differ_where_nodes_differ_in_size(
    run_config: Config, tmp_path: Path, tweets_csv: Path
) -> None:
    small = tmp_path / "small.csv"
    with tweets_csv.open(newline="") as source, small.open("w", newline="") as target:
        csv.writer(target).writerows(list(csv.reader(source))[::6])
    silos = [silo(path.stem, path, tmp_path / path.stem) for path in (tweets_csv, small)]
    labels = {"labels": "negative,neutral,positive"}
    by = {
        kind: student(run_server(LoopbackGrid(run_config(aggregation=kind, run_name=kind, **labels), silos)))
        for kind in ("examples", "uniform")
    }
    assert any(not torch.equal(by["examples"][name], by["uniform"][name]) for name in by["uniform"])


def test_without_distillation_the_student_is_that_of_fedavg(run_config: Config, tiny_bert_with_dropout: Path) -> None:
    """Bit for bit, whatever the teachers do and draw beside it."""
    common = {"codec": "dense", "teacher": str(tiny_bert_with_dropout)}
    apart = {"teacher_kl": 0.0, "student_kl": 0.0}
    fedkd = student(run_server(LoopbackGrid(run_config(run_name="fedkd", **apart, **common), nodes(2))))
    fedavg = student(run_server(LoopbackGrid(run_config(run_name="avg", method="fedavg-student", **common), nodes(2))))
    assert fedkd.keys() == fedavg.keys()
    assert all(torch.equal(tensor, fedavg[name]) for name, tensor in fedkd.items())


@pytest.mark.parametrize(
    ("method", "who", "layers"),
    [
        ("fedkd", {"student", "teachers"}, 2),
        ("fedkd-paper", {"student", "teachers"}, 2),
        ("fml", {"student", "teachers"}, 2),
        ("fedavg", {"student"}, 4),
        ("fedavg-lora", {"student"}, 4),
        ("fedprox", {"student"}, 4),
        ("fedpaq", {"student"}, 4),
        ("onebit", {"student"}, 4),
        ("fedavg-student", {"student"}, 2),
        ("local", {"teachers"}, 0),
    ],
)
def test_a_method_is_which_models_learn_which_travel_and_how(
    run_config: Config, method: str, who: set[str], layers: int
) -> None:
    codec = {} if "codec.kind" in METHODS[method].fixes else {"codec": "auto", "budget": "8x"}
    folder = run_server(LoopbackGrid(run_config(method=method, **codec), nodes(2)))
    found = history(folder)
    for entry in found["rounds"]:
        assert {name for name in ("student", "teachers") if entry[name] is not None} == who
        assert entry["losses"].keys() == {name.removesuffix("s") for name in who}
    assert len({name.partition("layer.")[2][:1] for name in student(folder) if "layer." in name}) == layers
    assert (folder / "student").is_dir() == bool(layers)
    with (folder / "traffic.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] not in ("header", "empty")]
    kinds, bits = ({row[column] for row in rows} for column in ("kind", "bits"))
    dense = method not in ("fedkd", "fedkd-paper", "onebit")
    assert kinds <= {"dense"} if dense else kinds - {"dense"}
    expected = {"fedpaq": {"8"}, "onebit": {"1", "8"}, "fedkd": bits}
    assert bits <= expected.get(method, {"32"}), "vectors take 8 bits at least"


@pytest.mark.parametrize(("method", "times"), [("fedpaq", 3.5), ("onebit", 20)])
def test_what_is_quantised_is_so_many_times_smaller_in_both_directions(
    run_config: Config, wide_bert: Path, method: str, times: float
) -> None:
    changes = {"teacher": str(wide_bert), "num_rounds": 1, "local_steps": 1, "max_test_examples": 2}
    folder = run_server(LoopbackGrid(run_config(method=method, **changes), nodes(2)))
    (entry,) = history(folder)["rounds"]
    size = history(folder)["sizes"]["student-bytes"]
    for direction in ("up", "down"):
        assert times < size / (entry[f"bytes-{direction}"] / 2), direction


@pytest.mark.parametrize("method", ["fedprox", "fedpaq", "onebit"])
def test_a_rival_resumes_like_any_other_and_is_exported_as_it_ended(run_config: Config, method: str) -> None:
    changes = {"method": method, **({"codec": "dense"} if method == "fedprox" else {})}
    straight = run_server(LoopbackGrid(run_config(run_name="straight", **changes), nodes(2)))
    folder = run_server(LoopbackGrid(run_config(num_rounds=1, **changes), nodes(2)))
    run_server(LoopbackGrid(run_config(resume=str(folder), **changes), nodes(2), first_id=900))
    assert_same(student(folder), student(straight))
    exported = load_classifier(folder / "student").state_dict()
    assert_same({name: exported[name] for name in student(folder)}, student(straight))


def test_fedprox_is_fedavg_with_a_term_that_holds_the_update_back(run_config: Config) -> None:
    """So strong that nothing moves, with the usual strength, and as a key of another method."""
    plain = {"codec": "dense", "num_rounds": 1}
    runs = {
        "strong": {"method": "fedprox", "proximal": 1e30},
        "usual": {"method": "fedprox"},
        "key": {"method": "fedavg", "proximal": 0.01},
        "none": {"method": "fedavg"},
    }
    found = {
        name: student(run_server(LoopbackGrid(run_config(run_name=name, **plain, **run), nodes(2))))
        for name, run in runs.items()
    }
    initial = build_pair(RunConfig.parse(run_config(**runs["none"], **plain)), LABELS).initial_shared
    assert_same(found["strong"], initial)
    assert_same(found["usual"], found["key"])
    moved = {name: sum(float((t - initial[n]).square().sum()) for n, t in s.items()) for name, s in found.items()}
    assert 0 == moved["strong"] < moved["usual"] < moved["none"]
