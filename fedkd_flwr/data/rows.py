"""The rows of a table as its data have them, and how errors call them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Place:
    """Where rows come from.

    Attributes:
        name: of the data, for errors.
        lines: in which line of its file each row begins, counted from 1; empty: rows have no lines.
        numbers: of the rows, counted from 1 without a header; empty: they are all there, in their order.
    """

    name: str
    lines: Sequence[int] = ()
    numbers: Sequence[int] = ()

    def row(self, index: int) -> str:
        """How errors call a row, whose index counts from 0."""
        number = self.numbers[index] if len(self.numbers) else index + 1
        return row_at(self.name, number, self.lines[index] if len(self.lines) else 0)


@dataclass(frozen=True)
class Rows:
    """What was read.

    Attributes:
        table: the columns that were asked for and are there once, or more.
        count: of rows.
        names: of all columns.
        lines: as in `Place`.
        header: what errors may say of the columns of a csv file, whose first line may be no header but a row; empty:
            their names.
        declared: names of the labels, where the data declare them, in their order.
    """

    table: "pa.Table"
    count: int
    names: Sequence[str]
    lines: Sequence[int] = ()
    header: str = ""
    declared: tuple[str, ...] = ()


def row_at(name: str, number: int, line: int, held_out: bool = False) -> str:
    """How errors call row `number` of data that begins in this line of its file; 0: it has no lines."""
    return f"{name}: {'held-out ' if held_out else ''}row {number}" + (f" (line {line})" if line else "")
