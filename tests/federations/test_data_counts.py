"""What nodes count in their data reaches the run's log and history.json, and nothing else of the data does."""

import csv
from pathlib import Path

import pytest
from support.federation import Config, history, silo
from support.loopback import LoopbackGrid, run_server


def write(path: Path, labels: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        writer.writerows((f"{path.stem} {i} is a text", labels[i % 2]) for i in range(20))
        writer.writerows(rows)
    return str(path)


def test_counts_stand_in_log_and_history(run_config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    long = "the flight was " * 40
    repeats = [("North 0 is a TEXT", "yes"), ("north 1 is a text", "yes"), (long, "no"), ("none", "")]
    places = [
        silo(name, write(tmp_path / f"{name}.csv", labels, rows), tmp_path / "state", labels=",".join(sorted(labels)))
        for name, labels, rows in (("north", ("yes", "no"), repeats), ("south", ("Yes", "No"), []))
    ]
    raw = run_config(num_rounds=1, skip_unlabelled=True, partition="natural")
    found = history(run_server(LoopbackGrid(raw, places)))
    counted = {key: found["data"]["north"][key] for key in ("rows", "repeats", "conflicts", "unlabelled", "cut")}
    assert counted == {"rows": 23, "repeats": 1, "conflicts": 1, "unlabelled": 1, "cut": 1}
    assert found["data"]["north"]["longest"] == 122 and found["data"]["south"]["repeats"] == 0
    for sentence in (
        "fedkd: north: 1 of 23 rows repeat an earlier one and are left out",
        "fedkd: north: 1 of 23 rows repeat an earlier one under another label and are left out: see which is right",
        "fedkd: north: 1 rows have no label and are left out",
        "fedkd: north: 1 of 21 texts are longer than model.max-length (64 tokens; the longest has 122) and are cut",
        "labels differ (some only in case), so each node keeps a head of its own",
    ):
        assert sentence in caplog.text
    assert "fedkd: south: " not in caplog.text.replace("fedkd: south joined", "")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a secret,1\nanother,0\n", 1),
        (b"text,label\na,1\nb,secret\n", 1),
        ("text,label\nsecret Müller,1\n".encode("latin-1"), 0),
        (b"PK\x03\x04" + b"xl/secret" * 9, 0),
    ],
    ids=["no header", "another label", "latin-1", "a workbook"],
)
def test_no_cell_of_a_file_that_is_refused_reaches_the_server(
    content: bytes, told: int, run_config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the node's own log, which its owner reads, the cell stands where it helps."""
    (tmp_path / "a.csv").write_bytes(content)
    grid = LoopbackGrid(run_config(labels="0,1"), [silo("north", tmp_path / "a.csv", tmp_path / "state")])
    with pytest.raises(Exception, match="node north: ") as caught:
        run_server(grid)
    assert "secret" not in str(caught.value) and str(tmp_path) not in str(caught.value)
    assert [record.name for record in caplog.records if "secret" in record.getMessage()] == ["flwr"] * told
