"""What the documentation tells to type is a run."""

import re
import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from fedkd_flwr.cli.run_arguments import gather

ROOT = Path(__file__).parent.parent
PAGES = [path for folder in (".", "docs", "docs/*", "examples/*") for path in sorted(ROOT.glob(f"{folder}/*.md"))]

VARIABLE = re.compile(r"\$([A-Z]+)")


def _value(values: dict[str, str], variable: re.Match[str]) -> str:
    return values.get(variable[1], variable[0])


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command in the shell blocks of a page, its variables put in."""
    for block in re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        values: dict[str, str] = {}
        text = ""
        for line in block.replace("\\\n", " ").splitlines():
            text += f"{line}\n"
            if text.count("'") % 2:
                continue
            if assigned := re.fullmatch(r"([A-Z]+)='(.*)'\n", text, re.DOTALL):
                values[assigned[1]] = assigned[2]
            else:
                words = shlex.split(text, comments=True)
                yield [VARIABLE.sub(partial(_value, values), word) for word in words]
            text = ""


def overrides(words: list[str]) -> list[str]:
    """What a command sets: texts, or files that are here."""
    given = [words[at + 1] for at, word in enumerate(words) if word in ("-c", "--run-config")]
    given += words[2:] if words[0] == "docker/run.sh" else []
    return [each for each in given if "=" in each or (ROOT / each).is_file()]


RUNS = [
    (page, each)
    for page in PAGES
    for words in commands(page)
    if words[:1] in (["fedkd"], ["flwr"], ["docker/run.sh"]) and (each := overrides(words))
]


@pytest.mark.parametrize(
    ("page", "given"), RUNS, ids=[f"{page.stem}-{number}" for number, (page, _) in enumerate(RUNS)]
)
def test_commands_are_runs(page: Path, given: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page tells to type is a run: its keys and values exist and fit together."""
    monkeypatch.chdir(ROOT)
    if "run.resume" not in " ".join(given):
        gather(ROOT, given)
