"""The pieces of HTML and SVG that a study's tables and charts share."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from urllib.parse import quote

from trifold.report.markup import text

NUM_LOOKS = 8
"""Colours, and marks: enough for every series of a plot that one can still read."""

MARKS = (
    "M-4.4 0a4.4 4.4 0 1 0 8.8 0a4.4 4.4 0 1 0-8.8 0z",
    "M-4-4h8v8h-8z",
    "M0-5.4L5.2 3.9H-5.2z",
    "M0-5.8L5.8 0L0 5.8L-5.8 0z",
    "M0 5.4L5.2-3.9H-5.2z",
    "M-1.8-5.2h3.6v3.4h3.4v3.6h-3.4v3.4h-3.6v-3.4h-3.4v-3.6h3.4z",
    "M-5-2.5L-2.5-5L0-2.5L2.5-5L5-2.5L2.5 0L5 2.5L2.5 5L0 2.5L-2.5 5L-5 2.5L-2.5 0z",
    "M0-6.2L1.6-2L6-1.9L2.5.9L3.7 5.2L0 2.7L-3.7 5.2L-2.5.9L-6-1.9L-1.6-2z",
)
"""Circle, square, triangle, diamond, triangle on its head, plus, cross, star: outlines around 0, 0."""

_NO_PATH = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]|^[/\s]|^[^/]*:")


def address(link: str) -> str:
    """A file's path below or beside the page as an address; empty for what is absolute, has a scheme or is no path."""
    return "" if _NO_PATH.search(link) else quote(link, safe="/")


def linked(inside: str, link: str) -> str:
    """The HTML or SVG, leading to the file where the link is one."""
    found = address(link)
    return f'<a href="{found}">{inside}</a>' if found else inside


def look(index: int) -> tuple[int, str]:
    """The number of a series' colour and the outline of its mark; the pair is its own among the first 64."""
    return index % NUM_LOOKS, MARKS[(index + index // NUM_LOOKS) % NUM_LOOKS]


def text_width(label: str, size: float) -> float:
    """About how wide a text is at a font size, on the generous side."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in label)
    return size * (0.57 * (len(label) - wide) + 1.05 * wide)


def shortened(label: str, most: float, size: float) -> str:
    """The text where it fits into a width, else its beginning with an ellipsis."""
    if text_width(label, size) <= most:
        return label
    kept = label[: int(most / (0.57 * size))]
    while kept and text_width(kept + "…", size) > most:
        kept = kept[:-1]
    return kept.rstrip() + "…"


def wrapped(label: str, most: float, size: float) -> tuple[str, ...]:
    """The text in one line or two, broken at a space in the first line's second half; what is left out lies between."""
    if text_width(label, size) <= most:
        return (label,)
    end = len(shortened(label, most, size)) - 1
    space = label.rfind(" ", 0, end + 1)
    if space > end / 2:
        end = space
    rest = label[end:].lstrip()
    return label[:end].rstrip(), shortened(rest[::-1], most, size)[::-1]


def svg_text(x: float, y: float, label: str, *, anchor: str = "start", kind: str = "") -> str:
    """A line of text in a drawing; kind: its class."""
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text(label)}</text>'


def svg(size: tuple[float, float], inside: str, label: str, *, turned: bool = False) -> str:
    """A chart of a width and height; turned: its series run from the top down."""
    return (
        f'<svg class="chart" viewBox="0 0 {size[0]:g} {size[1]:g}" role="group" aria-label="{text(label)}"'
        f"{' data-turned' if turned else ''}>{inside}</svg>"
    )


def described(lines: Sequence[str]) -> str:
    """What a browser shows on hover, line by line; empty lines are left out."""
    return f"<title>{chr(10).join(text(line) for line in lines if line)}</title>"
