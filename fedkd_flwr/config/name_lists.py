"""Lists of names in one string, as run-config keys hold them: a,b,"c, d"."""

import csv
import io
from collections.abc import Iterable

MOST, LONGEST = 1000, 100
"""Of names of labels: how many, and of how many characters."""


def names(text: str) -> tuple[str, ...]:
    """The names of a list, stripped of surrounding space; one that holds a comma stands in double quotes.

    Raises:
        ValueError: a quote does not end, or something follows it.
    """
    try:
        lines = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
        return tuple(name.strip() for line in lines for name in line if name.strip())
    except csv.Error:
        raise ValueError(f"{text!r} is no list of names: double the quotes inside of quoted names") from None


def listed(all_names: Iterable[str]) -> str:
    """The list that `names` reads as these names."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow(all_names)
    return text.getvalue().removesuffix("\r\n")
