"""The pieces of HTML that a run's page is made of; every text that comes from outside goes through `text`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from trifold.report.contents import Cell, Fact, Grid
from trifold.report.figures import percent, short_number

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def text(value: object) -> str:
    """The value as HTML text: escaped, without control characters, as bytes where it is not Unicode."""
    plain = str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    return escape(_CONTROLS.sub("\ufffd", plain))


def name(value: object) -> str:
    """A name from outside as HTML: its direction of writing does not reach beyond it."""
    return f"<bdi>{text(value)}</bdi>"


def share(value: float | None) -> str:
    """A share in per cent that does not break, or a dash."""
    return "–" if value is None else percent(value).replace(" ", "\u00a0")


def duration(seconds: float) -> str:
    """The time as one would say it: 1 h 12 min, 14 min, 3 min 5 s, 8.2 s."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 10:
        return f"{minutes} min {rest} s"
    if seconds < 59.5 * 60:
        return f"{round(seconds / 60)} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def section(title: str, inside: str) -> str:
    """A section of the page; both are HTML already."""
    return f"<section><h2>{title}</h2>{inside}</section>\n"


def scroll(inside: str, label: str, *, tall: bool = False) -> str:
    """A region that scrolls by itself, also by keyboard."""
    return (
        f'<div class="scroll{" tall" if tall else ""}" tabindex="0" role="region" aria-label="{label}">{inside}</div>'
    )


def table(grid: Grid) -> str:
    """The first column names its row; a column of numbers stands to the right."""
    numbers = [i > 0 and all(_is_number(row[i]) for row in grid.rows) for i in range(len(grid.columns))]
    kinds = [' class="number"' if number else "" for number in numbers]
    head = "".join(
        f'<th scope="col"{kind}>{text(column)}</th>' for kind, column in zip(kinds, grid.columns, strict=True)
    )
    body = "".join(_row(row, kinds) for row in grid.rows)
    foot = f"<tfoot>{_row(grid.total, kinds)}</tfoot>" if grid.total else ""
    return f'<table class="wide"><thead><tr>{head}</tr></thead><tbody>{body}</tbody>{foot}</table>'


def _row(row: Sequence[Cell], kinds: Sequence[str]) -> str:
    first = f'<th scope="row"{kinds[0]}>{name(_value(row[0]))}</th>'
    return (
        f"<tr>{first}{''.join(f'<td{k}>{name(_value(v))}</td>' for v, k in zip(row[1:], kinds[1:], strict=True))}</tr>"
    )


def _is_number(cell: Cell) -> bool:
    return not isinstance(cell, str) or cell == "–" or cell.endswith("\u00a0%")


def _value(cell: Cell) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, int):
        return f"{cell:,}"
    return cell if isinstance(cell, str) else short_number(cell)


def fact_table(rows: Sequence[Fact]) -> str:
    """Names and values."""
    cells = "".join(f'<tr><th scope="row">{name(fact.name)}</th><td>{name(fact.value)}</td></tr>' for fact in rows)
    return f'<table class="wide"><tbody>{cells}</tbody></table>'
