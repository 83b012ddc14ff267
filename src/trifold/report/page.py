"""A run's page: one HTML file that shows everything about it and needs nothing else, neither network nor script."""

from __future__ import annotations

from pathlib import Path

from trifold.report import sections
from trifold.report.contents import RunPage
from trifold.report.markup import share, text
from trifold.report.style import STYLE

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a browser lets the page load: nothing but the pictures in it."""


def page_html(page: RunPage) -> str:
    """The whole page as HTML text."""
    head = page.headline
    title = text(f"{head.network} on {head.data}: {share(head.correct / head.images)}")
    body = (
        sections.headline(head),
        sections.key_figures(page.key, page.curves.chosen),
        sections.course(page),
        sections.confusion_matrix(page.confusion),
        sections.confused_pairs(page.pairs),
        sections.class_table(page.class_rows),
        sections.reliability(page.calibration),
        sections.cost_table(page.cost),
        sections.recipe_table(page.recipe),
        sections.facts(page),
        sections.events(page.events),
        sections.caution_list(page),
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style></head>\n"
        f'<body><main>{"".join(body)}<footer class="soft small">Made by Trifold. This file needs no other.</footer>'
        "</main></body></html>\n"
    )


def draw_page(page: RunPage, path: Path) -> None:
    """Writes the page of a run to a file."""
    write_page(page_html(page), path)


def write_page(html: str, path: Path) -> None:
    """Writes HTML under a temporary name, then renames it, so that the file is never half a page."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(html, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
