"""A report shows what its runs' folders say, in one page that takes no text for more than text."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.browser import CHROMIUM, opened
from support.federation import nodes
from support.loopback import LoopbackGrid, run_server
from typer.testing import CliRunner

from fedkd_flwr.cli.main import app
from fedkd_flwr.tracking.finished_run import Run
from fedkd_flwr.tracking.report import REPORT, write_report
from fedkd_flwr.tracking.report.figures import split
from fedkd_flwr.tracking.report.page import charts_of
from fedkd_flwr.tracking.report.plotting import LINE, Line, end_labels
from fedkd_flwr.tracking.report.source import Source
from fedkd_flwr.tracking.report.style import PALETTES
from fedkd_flwr.tracking.summary import read_summary

HOSTILE = "</script><script>document.title='taken'</script><img src=http://example.org/x onerror=alert(1)> %{y} @c0"


class Page(HTMLParser):
    """What a page is made of: kinds of its elements, their attributes, its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.scripts: list[dict[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "script":
            self.scripts.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def folder(tiny_run: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rounds."""
    place = tmp_path_factory.mktemp("reported")
    raw = tiny_run | {"run.runs-dir": str(place / "runs"), "run.state-dir": str(place / "state")}
    return run_server(LoopbackGrid(raw, nodes(2)))


@pytest.fixture(scope="module")
def hostile(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, where everything that a node says of itself is an attack."""
    place = tmp_path_factory.mktemp("hostile") / "run-2"
    place.mkdir()
    shutil.copy(folder / "traffic.csv", place)
    stored = json.loads((folder / "history.json").read_text())
    for data in stored["data"].values():
        data |= {"title": HOSTILE, "device": HOSTILE}
    for entry in stored["rounds"]:
        entry |= {"failed": {"partition-0": HOSTILE}, "notes": {"partition-1": [HOSTILE]}}
    (place / "history.json").write_text(json.dumps(stored))
    return place


def source(folder: Path) -> Source:
    return Source.read(folder)


def test_a_run_has_a_page_with_its_figures_at_its_end(folder: Path) -> None:
    page = Page((folder / REPORT).read_text())
    summary = read_summary(folder)
    last = summary.rounds[-1]
    assert f"{last.scores['student'].first:.3f}" in page.text and f"{last.scores['teachers'].first:.3f}" in page.text
    sent = sum((row.up or 0) + (row.down or 0) for row in summary.rounds) / 1e6
    assert source(folder).megabytes[2] == pytest.approx(sent)
    for words in ("partition-0", "codec.kind", "transformers", "Macro-F1 per round"):
        assert words in page.text
    assert Run.load(folder).report() == folder / REPORT


def test_a_page_asks_nothing_of_anybody(folder: Path) -> None:
    text = (folder / REPORT).read_text()
    page = Page(text)
    assert not [value for name, value in page.attributes if name in ("src", "href", "action", "data")]
    assert any(name == "content" and "default-src 'none'" in value for name, value in page.attributes)
    assert len(text) < 2.3e6, "it goes through a mail"


def test_what_nodes_say_is_text(hostile: Path, tmp_path: Path) -> None:
    page = Page(write_report([hostile], tmp_path / "page.html").read_text())
    assert HOSTILE in page.text
    assert "img" not in page.elements and not [name for name, _ in page.attributes if name.startswith("on")]
    assert [script.get("id") for script in page.scripts] == ["palettes", "charts", "plotly", None]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_browser_draws_all_plots_without_a_word(folder: Path, hostile: Path, tmp_path: Path) -> None:
    alone = write_report([hostile], tmp_path / "alone.html")
    several = write_report([folder, hostile], tmp_path / "several.html")
    for path, width in ((alone, 1000), (several, 400)):
        dom, said = opened(path, tmp_path / "browser", width)
        assert said == []
        plots = dom.count("data-chart=")
        assert plots >= 6 and len(re.findall(r'class="plot js-plotly-plot"', dom)) == plots
        assert dom.count('class="main-svg"') >= plots and 'id="problem" class="problem" role="alert" hidden' in dom
        assert "<title>taken" not in dom

    alone.write_text(alone.read_text().replace("H4sI", "H4sX", 1))
    dom, said = opened(alone, tmp_path / "browser")
    assert "cannot be drawn" in dom and 'class="main-svg"' not in dom


def test_plots_are_as_plotly_knows_them(folder: Path, hostile: Path) -> None:
    from plotly.graph_objects import Figure

    from fedkd_flwr.tracking.report.pictures import painted

    for sources in ([source(folder)], [source(folder), source(hostile)]):
        for _, charts in charts_of(sources):
            for _, chart in charts:
                Figure(painted(chart.figure))
                assert '"@' not in json.dumps(painted(chart.figure)) and chart.alt and chart.note


def test_both_themes_have_all_colours() -> None:
    assert PALETTES["light"].keys() == PALETTES["dark"].keys()


def test_the_heat_map_has_every_byte(folder: Path) -> None:
    """Cells times updates are the bytes that the run's ledger has, up and down."""
    ((_, chart),) = dict(charts_of([source(folder)]))["Traffic"]
    with (folder / "traffic.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for trace, direction in zip(chart.figure["data"], ("up", "down"), strict=True):
        for column, number in enumerate(("1", "2")):
            cells = [row[column] or 0 for row in trace["z"]]
            sent = [int(r["bytes"]) for r in rows if (r["direction"], r["round"]) == (direction, number)]
            assert 2 * sum(cells) == pytest.approx(sum(sent))


@given(
    server=st.floats(0, 1e3), flower=st.floats(0, 1e3), wall=st.floats(0, 1e4),
    nodes=st.dictionaries(st.sampled_from(["train", "codec", "state"]), st.floats(0.1, 1e4), min_size=1),
)  # fmt: skip
def test_the_parts_of_a_rounds_time_are_the_whole(
    server: float, flower: float, wall: float, nodes: dict[str, float]
) -> None:
    parts = split({"round": server + flower + wall, "server": server, "flower": flower, **nodes})
    assert sum(parts.values()) == pytest.approx(server + flower + wall)
    for name, seconds in nodes.items():
        assert parts[name] * sum(nodes.values()) == pytest.approx(seconds * wall, abs=1e-6)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_labels_at_the_ends_of_lines_never_overlap(ends: list[float]) -> None:
    lines = [Line(f"line {n}", [1, 2], [0.5, end], "@c0") for n, end in enumerate(ends)]
    labels = end_labels(lines, (0.0, 1.0))
    places = sorted(label["y"] * 208 + label["yshift"] for label in labels)
    assert all(above - below >= LINE - 1e-6 for below, above in pairwise(places))
    if len(ends) == 1:
        assert labels[0]["yshift"] == pytest.approx(0)


def test_a_run_that_shares_nothing_tells_no_traffic(run_config: Callable[..., dict[str, Any]]) -> None:
    alone = run_server(LoopbackGrid(run_config(method="local", num_rounds=1), nodes(2)))
    assert not dict(charts_of([source(alone)]))["Traffic"]
    assert "less than FedAvg" not in (alone / REPORT).read_text()


def test_a_page_that_cannot_be_written_costs_the_run_a_line(
    run_config: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fedkd_flwr.tracking.report.write_text", refuse)
    folder = run_server(LoopbackGrid(run_config(num_rounds=1), nodes(2)))
    assert json.loads((folder / "history.json").read_text())["finished"]
    (line,) = [record.message for record in caplog.records if "no report" in record.message]
    assert "No space left" in line and "\n" not in line


def test_the_command_writes_one_page_for_several_runs(
    folder: Path, hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "both.html"
    done = CliRunner().invoke(app, ["report", str(folder), str(hostile), "--out", str(page)])
    assert done.exit_code == 0 and "both.html" in done.output
    assert {"run", "run-2"} <= set(Page(page.read_text()).text.split())
    monkeypatch.setattr("fedkd_flwr.tracking.report.pictures.find_spec", lambda name: None)
    page.unlink()
    done = CliRunner().invoke(app, ["report", str(folder), "--out", str(page), "--png", str(tmp_path / "plots")])
    assert done.exit_code == 2 and "pip install 'fedkd-flwr[png]'" in " ".join(done.output.split())
    assert not page.exists() and not (tmp_path / "plots").exists()
    done = CliRunner().invoke(app, ["report", str(tmp_path / "none")])
    assert done.exit_code == 2 and "holds no run" in done.output and done.output.count("\n") == 1
