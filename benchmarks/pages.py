"""The tables of README.md and docs/results/, from benchmarks/results/*.jsonl.

    python benchmarks/pages.py [--check]

Every table is written anew between its marks, `<!-- table: NAME -->` and `<!-- end -->`; NAME is a key of `TABLES`.
Scores are means over the seeds, with the standard error where there are several. `--check` writes nothing and fails
where a table is old.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import example_tables
import few_label_tables
import method_tables

ROOT = Path(__file__).parent.parent
MARKS = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
TABLES = method_tables.TABLES | example_tables.TABLES | few_label_tables.TABLES


def pages() -> Iterator[tuple[Path, str]]:
    """Each page that has a table, and its text with all tables as the results files have them."""
    for path in [ROOT / "README.md", *sorted((ROOT / "docs" / "results").glob("*.md"))]:
        text = path.read_text()
        if MARKS.search(text):
            yield path, MARKS.sub(lambda mark: f"{mark[1]}{TABLES[mark['name']].markdown()}{mark[3]}", text)


def main() -> None:
    """Write the pages, or name those that are old."""
    old = [(path, text) for path, text in pages() if path.read_text() != text]
    if "--check" in sys.argv[1:]:
        sys.exit(
            "\n".join(f"{path.relative_to(ROOT)} has an old table: run benchmarks/pages.py" for path, _ in old) or 0
        )
    for path, text in old:
        path.write_text(text)


if __name__ == "__main__":
    main()
