"""ADE-Corpus-V2 as train.csv, dev.csv and test.csv: does a sentence report an adverse drug effect?

    python examples/adr/ade_corpus.py FOLDER --out OUT

FOLDER holds two files of the corpus (Gurulingappa et al. 2012): `DRUG-AE.rel`, with a drug and an effect a line, and
`ADE-NEG.txt`, with a sentence that reports none a line. Each sentence is written once; label 1 reports an effect. A
tenth of the documents is `dev`, another tenth `test`, so that no document lies in two files.
"""

import argparse
import csv
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

COLUMNS = ("text", "label", "pubmed_id")


def sentences(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Text, label and document of each line, first of those that report an effect."""
    for line in lines(folder / "DRUG-AE.rel"):
        document, text, *_ = line.split("|")
        yield text.strip(), "1", document
    for line in lines(folder / "ADE-NEG.txt"):
        document, _, text = line.split(maxsplit=2)
        yield text.strip(), "0", document


def lines(path: Path) -> list[str]:
    """The lines of a file of the corpus that are not empty."""
    if not path.is_file():
        sys.exit(f"{path}: no such file; it is one of ADE-Corpus-V2's")
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def part(document: str) -> str:
    """The file in which a document lies, the same on every machine."""
    return {0: "dev", 1: "test"}.get(zlib.crc32(document.encode()) % 10, "train")


def main() -> None:
    """Write the three files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="holds DRUG-AE.rel and ADE-NEG.txt")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    once = {row[0]: row for row in reversed([*sentences(arguments.folder)])}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in ("train", "dev", "test"):
        rows = sorted(row for row in once.values() if part(row[2]) == name)
        with (arguments.out / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([COLUMNS, *rows])
        print(f"{arguments.out / f'{name}.csv'}: {len(rows)} sentences")


if __name__ == "__main__":
    main()
