"""A number in history.json is what the named file gives on the named rows, and no number where none is defined."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.federation import Config, held_out, history, nodes
from support.loopback import LoopbackGrid, run_server


@pytest.fixture(scope="module")
def opinions(tweets_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tweets that are negative or not: south has hardly a negative one, west none."""
    path = tmp_path_factory.mktemp("opinions") / "opinions.csv"
    with tweets_csv.open() as file, path.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["text", "label", "source"])
        for number, row in enumerate(csv.DictReader(file)):
            bad = row["label"] == "negative"
            sources = ("south" if number % 8 == 0 else "north",) if bad else ("north", "south", "west")
            writer.writerow([row["text"], "yes" if bad else "no", sources[number % len(sources)]])
    return path


def models_of(run: Path, node: str, found: dict[str, Any]) -> Iterator[tuple[Path, dict[str, float]]]:
    """The folders that a run left, and what the history says of each at a node."""
    own = Path(found["config"]["run.state-dir"], found["lineage"], node)
    scores = found["rounds"][-1]["nodes"][node]
    places = {
        "student": run / "student",
        "teacher": run / "teacher" if (run / "teacher").exists() else own / "teacher",
        "student-own-labels": own / "student",
        "teacher-own-labels": own / "teacher",
    }
    yield from ((places[model], given) for model, given in scores.items() if model in places and given is not None)


@pytest.mark.parametrize(
    ("changes", "models"),
    [
        ({"architecture": "nested"}, 3),
        ({"architecture": "nested", "shared_layers": 4}, 4),
        ({"logit_adjustment": "never", "architecture": "separate"}, 2),
    ],
    ids=["nested", "whole", "not adjusted"],
)
def test_every_score_is_what_the_exported_file_gives(
    run_config: Config, opinions: Path, changes: dict[str, Any], models: int
) -> None:
    own = {"dataset": f"csv:{opinions}", "partition": "natural", "logit_adjustment": "always", "labels": "no,yes"}
    raw = run_config(**own | {"num_rounds": 2} | changes)
    run = run_server(LoopbackGrid(raw, nodes(3)))
    found = history(run)
    for node in nodes(3):
        pairs = list(models_of(run, f"partition-{node['partition-id']}", found))
        assert len(pairs) == models
        for folder, given in pairs:
            assert held_out(raw, node, folder) == pytest.approx(given, abs=1e-6)


def test_what_is_undefined_at_a_node_is_left_out_of_its_scores_and_of_the_mean(
    run_config: Config, opinions: Path, tmp_path: Path
) -> None:
    """West has no negative tweet to find, and the server's own rows have none."""
    nothing_to_find = tmp_path / "server.csv"
    nothing_to_find.write_text("text,label\nlovely flight,no\nso kind,no\n")
    own = {"dataset": f"csv:{opinions}", "partition": "natural", "labels": "no,yes"}
    rows = {"server_test_data": f"csv:{nothing_to_find}", "test_fraction": 0.4, "max_test_examples": 0}
    raw = run_config(**own, **rows, num_rounds=1, max_weight_share=1.0)
    found = history(run_server(LoopbackGrid(raw, nodes(3))))
    assert found["rounds"][0]["server"].keys() == {"accuracy", "macro-f1", "loss"}
    for board in (found["initial"], found["rounds"][0]):
        scored = {node: each for node, each in board["nodes"].items() if "f1" in each["student"]}
        assert scored.keys() == {"partition-0", "partition-1"}
        assert board["nodes-scored"] == {"f1": 2, "average-precision": 2}
        for who, whose in (("student", "student"), ("teachers", "teacher")):
            assert board["nodes"]["partition-2"][whose].keys() == {"accuracy", "macro-f1", "loss"}
            weights = {node: each["test-examples"] for node, each in scored.items()}
            for name in ("f1", "average-precision"):
                total = sum(weights[node] * each[whose][name] for node, each in scored.items())
                assert board[who][name] == pytest.approx(total / sum(weights.values()))


def test_a_score_that_is_defined_nowhere_is_counted_as_such(run_config: Config, tmp_path: Path) -> None:
    texts = tmp_path / "calm.csv"
    texts.write_text("text,label\n" + "".join(f"flight number {n},no\n" for n in range(60)))
    raw = run_config(dataset=f"csv:{texts}", labels="no,yes", num_rounds=1)
    (entry,) = history(run_server(LoopbackGrid(raw, nodes(2))))["rounds"]
    assert entry["nodes-scored"] == {"f1": 0, "average-precision": 0}
    assert entry["student"].keys() == entry["teachers"].keys() == {"accuracy", "macro-f1", "loss"}
