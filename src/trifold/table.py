"""A table as values, and as aligned text whose reader sees which columns are recomputed and which are the paper's."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = {"label": "", "recomputed": "ours", "paper": "paper", "difference": "diff"}
"""Kinds of columns, and the mark that stands above their names."""

Cell = str | int | float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column's heading and where its values come from.

    kind: "label"; "recomputed" by this program; "paper", printed in the paper; "difference" of the two.
    digits: decimals of its floats; None shows them as they are printed.
    """

    name: str
    kind: str = "recomputed"
    digits: int | None = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table as values; number is what `trifold paper` calls it, source the version or file of the paper's columns."""

    number: str
    title: str
    source: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


def lines(table: Table) -> tuple[str, ...]:
    """The table as aligned text: kinds of the columns, their names, a rule, the rows; no line ends in a space.

    The line of kinds is left out where every column is a label.
    """
    head = [[KINDS[column.kind] for column in table.columns], [column.name for column in table.columns]]
    head = head if any(head[0]) else head[1:]
    cells = [[_cell(value, column) for value, column in zip(row, table.columns, strict=True)] for row in table.rows]
    widths = [max(map(len, texts)) for texts in zip(*head, *cells, strict=True)]
    words = [all(isinstance(row[i], str) for row in table.rows) for i in range(len(widths))]

    def line(row: list[str]) -> str:
        aligned = (
            text.ljust(width) if is_word else text.rjust(width)
            for text, width, is_word in zip(row, widths, words, strict=True)
        )
        return "  ".join(aligned).rstrip()

    return (*map(line, head), line(["-" * width for width in widths]), *map(line, cells))


def _cell(value: Cell, column: Column) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) or column.digits is None else f"{value:,.{column.digits}f}"
