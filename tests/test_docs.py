"""Laws of the documentation: links lead somewhere, figures stand beside their commands, commands name real keys."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS, *sorted((ROOT / "examples").rglob("*.md"))]

FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
GROUPED = re.compile(
    r"(?<![\w./-])((?:model|data|train|distillation|codec|federation|run)\.(?!(?:[ct]sv|txt|toml)\b)[a-z]+(?:-[a-z]+)*)(?=[=`\s,])"
)
"""A key with its group. (What leaves a node has fields of such names, and policies have such groups: privacy.md.)"""
SETTINGS = re.compile(r"""(?:(?:^|\s)(?:-c|--run-config)\s|\b[A-Z]+=)('[^']*'|"[^"]*"|[^\s'"]+=\S+)""")
"""What a command sets, or a variable for commands."""
SET = re.compile(r"""(?:^|[\s'"])([a-z][a-z.-]*)=""")


def ids(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """What its headings are called in links."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path) -> Iterator[str]:
    """Links to no file of the repository or to no heading of it."""
    for target in (match["target"] for match in LINK.finditer(CODE.sub("", prose(page)))):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.is_file() or (anchor and anchor not in anchors(file)):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    assert not list(broken(page))


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One heading\n[a](#one-heading) [b](#another) [c](none.md) [d](https://example.org/none.md)\n")
    assert list(broken(page)) == ["#another", "none.md"]


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_files_that_are_named_are_there(page: Path) -> None:
    named = re.findall(
        r"(?<![\w./-])((?:tests|benchmarks|examples|docker|scripts|fedkd_flwr)/[\w./-]*\w)", page.read_text()
    )
    made = ("docker/secrets", "docker/data")
    assert not [path for path in named if not path.startswith(made) and not (ROOT / path).exists()]


@pytest.mark.parametrize("page", DOCS, ids=ids(DOCS))
def test_docs_link_to_nothing_that_the_site_lacks(page: Path) -> None:
    """The site is made of docs/ alone."""
    targets = [match["target"].partition("#")[0] for match in LINK.finditer(CODE.sub("", prose(page)))]
    files = [(page.parent / target).resolve() for target in targets if target and not re.match(r"[a-z]+:", target)]
    assert all(file.is_relative_to(ROOT / "docs") for file in files)


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    assert sorted(re.findall(r"[\w./-]+\.md", navigation)) == sorted(ids(DOCS)[i][5:] for i in range(len(DOCS)))


def test_the_readme_is_read_to_its_end() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *(page for page in DOCS if page.parent.name != "results")], ids=lambda page: page.stem
)
def test_scores_stand_on_results_pages_only(page: Path) -> None:
    """A score of three decimals is a measurement: it belongs beside its command."""
    assert not re.findall(r"(?<![\d.])[01]\.\d{3}(?!\d)", page.read_text())


RESULTS = [page for page in DOCS if page.parent.name == "results" and page.stem not in ("index", "removed")]


@pytest.mark.parametrize("page", RESULTS, ids=lambda page: page.stem)
def test_a_results_page_has_its_command_and_date(page: Path) -> None:
    text = page.read_text()
    assert re.search(r"`[^`]*(benchmarks|make )[^`]*`", text) and re.search(r"\b2026-\d\d-\d\d\b", text)


def test_tables_are_those_of_the_results_files() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "pages.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def known_keys() -> set[str]:
    """The keys of docs/configuration.md, which follows from the code."""
    return set(re.findall(r"^\| `([a-z.-]+)` \|", (ROOT / "docs" / "configuration.md").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_keys_exist(page: Path) -> None:
    """Those with a group, wherever code other than Python stands, and all that a command sets."""
    text = re.sub(r"^```python$.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    code = "\n".join([*FENCE.findall(text), *CODE.findall(FENCE.sub("", text))])
    grouped = set() if page.name == "privacy.md" else set(GROUPED.findall(code))
    set_by_commands = {key for setting in SETTINGS.findall(code) for key in SET.findall(setting)}
    assert grouped | set_by_commands <= known_keys()
