"""A study's page: one HTML file with all that its trainings answer, which needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

from trifold.report.charts import data_uri
from trifold.report.contents import Fact
from trifold.report.markup import fact_table, name, scroll, section, text
from trifold.report.page import write_page
from trifold.report.study_charts import draw_dots, draw_plot
from trifold.report.study_contents import Block, Dots, Picture, Plot, StudyPage, Table, Value
from trifold.report.study_markup import NUM_LOOKS, linked, look
from trifold.report.study_points import is_shaded
from trifold.report.study_script import SCRIPT
from trifold.report.study_style import STUDY_STYLE
from trifold.report.style import STYLE

_DIGEST = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode("ascii")
_POLICY = (
    f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{_DIGEST}'; base-uri 'none'; "
    "form-action 'none'"
)
"""What a browser lets the page do: run the one script that is written here, and load nothing."""

_MANY_ROWS = 30


def study_html(page: StudyPage) -> str:
    """The whole page as HTML text."""
    body = (_header(page), *map(_block, page.blocks), _command(page.command), _facts(page))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{text(page.title)}</title>\n<style>{STYLE}{STUDY_STYLE}</style></head>\n"
        f'<body><main>{"".join(body)}<footer class="soft small">Made by Trifold. This file needs no other; its links '
        f"lead to the pages of single runs.</footer></main>\n<script>{SCRIPT}</script></body></html>\n"
    )


def draw_study(page: StudyPage, path: Path) -> None:
    """Writes the page of a study to a file."""
    write_page(study_html(page), path)


def _header(page: StudyPage) -> str:
    notes = "".join(f'<p class="note">{name(note)}</p>' for note in page.notes)
    return (
        f'<header><h1>{name(page.title)}</h1><p class="question">{name(page.question)}</p>'
        f'<p class="answer">{name(page.answer)}</p>{notes}</header>'
    )


def _block(block: Block) -> str:
    match block:
        case Table():
            inside = _table(block)
        case Plot():
            names = [series.name for series in block.series]
            lines = [_sample_line(series.joined, series.dashed) for series in block.series]
            inside = _figure(draw_plot(block), _shades(block) + _legend(names, lines), block.caption)
        case Dots():
            inside = _figure(draw_dots(block), _legend(block.legend, [""] * len(block.legend)), block.caption)
        case Picture():
            said = f"<figcaption>{name(block.caption)}</figcaption>" if block.caption else ""
            inside = f'<figure><img class="drawn" src="{data_uri(block.png)}" alt="{text(block.alt)}">{said}</figure>'
    return section(name(block.title), inside)


def _table(table: Table) -> str:
    note = f"<p>{name(table.note)}</p>" if table.note else ""
    if not table.rows:
        return f'{note}<p class="soft">Nothing to show yet.</p>'
    columns = [[row[i] for row in table.rows] for i in range(len(table.columns))]
    kinds = [' class="number"' if i and all(map(_is_number, column)) else "" for i, column in enumerate(columns)]
    heads = "".join(
        f'<th scope="col"{kind}>{name(label)}</th>' for kind, label in zip(kinds, table.columns, strict=True)
    )
    ranks = [_ranks(column) for column in columns]
    rows = "".join(
        _row(row, kinds, [rank[i] for rank in ranks], marked=i in table.marked) for i, row in enumerate(table.rows)
    )
    made = f'<table class="wide sorts"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    return note + scroll(made, text(table.title), tall=len(table.rows) > _MANY_ROWS)


def _row(row: Sequence[Value], kinds: Sequence[str], ranks: Sequence[int | None], *, marked: bool) -> str:
    cells = []
    for i, (value, column_kind, rank) in enumerate(zip(row, kinds, ranks, strict=True)):
        tag = 'th scope="row"' if i == 0 else "td"
        order = "" if rank is None else f' data-rank="{rank}"'
        cells.append(f"<{tag}{column_kind}{order}>{linked(name(value.shown or '–'), value.link)}</{tag[:2]}>")
    kind = ' class="marked"' if marked else ""
    return f"<tr{kind}>{''.join(cells)}</tr>"


def _is_number(value: Value) -> bool:
    return not isinstance(value.order, str) or not value.order


def _ranks(column: Sequence[Value]) -> list[int | None]:
    """Each cell's place in the order of its column, the same for equal ones; None for nan and empty text."""
    keys = [_key(value.order) for value in column]
    places = {key: place for place, key in enumerate(sorted({key for key in keys if key is not None}))}
    return [None if key is None else places[key] for key in keys]


def _key(order: float | str) -> tuple[int, float, str] | None:
    if isinstance(order, str):
        return (1, 0.0, order.casefold()) if order else None
    return None if math.isnan(order) else (0, order, "")


def _figure(drawn: str, legend: str, caption: str) -> str:
    said = f"<p>{name(caption)}</p>" if caption else ""
    if not drawn:
        return f'{said}<p class="soft">Nothing to draw yet.</p>'
    side = f'<figcaption class="side">{legend}{said}</figcaption>'
    return f'<figure class="explored"><div class="canvas">{drawn}</div>{side}</figure>'


def _sample_line(joined: bool, dashed: bool) -> str:
    return f'<path class="line{" dashed" if dashed else ""}" d="M-15 0H15"/>' if joined else ""


def _legend(names: Sequence[str], lines: Sequence[str]) -> str:
    """What each series' mark means, folded away where there are more than colours; nothing for series without name."""
    if not any(names):
        return ""
    items = "".join(
        f'<li class="c{look(i)[0]}" data-series="{i}"><svg class="sample" viewBox="-16 -8 32 16" aria-hidden="true">'
        f'{line}<path class="mark" d="{look(i)[1]}"/></svg>{name(label)}</li>'
        for i, (label, line) in enumerate(zip(names, lines, strict=True))
    )
    made = f'<ul class="legend">{items}</ul>'
    return made if len(names) <= NUM_LOOKS else f"<details><summary>{len(names)} series</summary>{made}</details>"


def _shades(plot: Plot) -> str:
    """What the two ends of the scale stand for, where points have a colour of it."""
    if not any(is_shaded(point) for series in plot.series for point in series.points):
        return ""
    low, high = name(plot.shade_low or "low"), name(plot.shade_high or "high")
    return f'<p class="shades"><span>{low}</span><i class="ramp"></i><span>{high}</span></p>'


def _command(command: str) -> str:
    if not command:
        return ""
    lines = "\n".join(name(line) for line in command.split("\n"))
    button = '<button type="button" class="copy" hidden>Copy</button>'
    return section("To repeat it", f'<div class="command"><pre><code>{lines}</code></pre>{button}</div>')


def _facts(page: StudyPage) -> str:
    tables: tuple[tuple[str, tuple[Fact, ...]], ...] = (("Machine", page.machine), ("Versions", page.versions))
    inside = "".join(f"<div><h3>{title}</h3>{fact_table(rows)}</div>" for title, rows in tables if rows)
    return section("Where it was made", f'<div class="panels">{inside}</div>') if inside else ""
