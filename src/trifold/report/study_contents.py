"""What a study's page says, as plain values."""

from __future__ import annotations

from typing import NamedTuple

from trifold.report.contents import Fact


class Value(NamedTuple):
    """A cell of a table that sorts.

    order: what it is sorted by: numbers before text, nan and empty text last. link: the path of a file from the page's
    own folder; dropped where it is anything else.
    """

    shown: str
    order: float | str
    link: str = ""


class Table(NamedTuple):
    """A table whose first column names its rows; marked: rows that stand out, by index before sorting."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    note: str = ""
    marked: tuple[int, ...] = ()


class Point(NamedTuple):
    """A value with its interval in y, drawn where both ends are finite.

    label: shown beside the values. shade: in [0, 1], a colour of a sequential scale in place of the series' own.
    link: as in `Value`.
    """

    x: float
    y: float
    label: str
    low: float | None = None
    high: float | None = None
    shade: float | None = None
    link: str = ""


class Series(NamedTuple):
    """Points of one kind; joined: by a line in order of x. band: (x, low, high), an area behind the points."""

    name: str
    points: tuple[Point, ...]
    joined: bool = True
    dashed: bool = False
    band: tuple[tuple[float, float, float], ...] = ()


class Plot(NamedTuple):
    """Series of y over x; shade_low and shade_high: what shades of 0 and 1 stand for."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    caption: str = ""
    log_x: bool = False
    shade_low: str = ""
    shade_high: str = ""


class Row(NamedTuple):
    """A row of a dot plot; point i belongs to legend[i], its x is ignored and its y runs along the horizontal axis."""

    name: str
    points: tuple[Point, ...]
    marked: bool = False


class Dots(NamedTuple):
    """A horizontal dot plot: names at the left, their values beside them."""

    title: str
    x_label: str
    legend: tuple[str, ...]
    rows: tuple[Row, ...]
    caption: str = ""


class Picture(NamedTuple):
    """A picture that was drawn elsewhere. png: the file's bytes. alt: what it shows, in words."""

    title: str
    png: bytes
    alt: str
    caption: str = ""


Block = Table | Plot | Dots | Picture


class StudyPage(NamedTuple):
    """Everything on the page of a study, in its order.

    question, answer: a sentence each. notes: what the reader must know. command: what repeats the study.
    """

    title: str
    question: str
    answer: str
    notes: tuple[str, ...]
    blocks: tuple[Block, ...]
    command: str
    machine: tuple[Fact, ...]
    versions: tuple[Fact, ...]
