"""Charts of a study as SVG whose colours follow the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from trifold.report.charts import number_label
from trifold.report.study_axes import Axis, drawable, make_axis
from trifold.report.study_contents import Dots, Plot, Point, Row, Series
from trifold.report.study_markup import NUM_LOOKS, described, look, shortened, svg, svg_text, text_width, wrapped
from trifold.report.study_points import Spot, Words, dodged, draw_point, interval, is_shaded

WIDTH, HEIGHT, SQUARE_HEIGHT = 520.0, 340.0, 470.0
TOP, BOTTOM, RIGHT = 34.0, 50.0, 20.0
FONT = 15.0
"""The size that room is kept for: that of narrow screens."""

MOST_POINTS = 300
"""A series of more points is drawn through as many, evenly taken."""
MOST_MARKS = 120
"""With more joined points than this, only the last of each series shows its mark."""
MOST_NAME = 200.0
"""The width of a row's name in a dot plot, which takes a second line where it must."""
_ROW, _LINE, _BETWEEN = 22.0, 17.0, 8.0
_MANY_ROWS = 15


class Frame(NamedTuple):
    """The axes of a plot in a drawing of some height, left units from its edge."""

    left: float
    height: float
    x_axis: Axis
    y_axis: Axis

    def x(self, value: float) -> float:
        """Where a value stands, from the left."""
        return self.left + (WIDTH - RIGHT - self.left) * self.x_axis.place(value)

    def y(self, value: float) -> float:
        """Where a value stands, from the top; nan where it has no place."""
        bottom = self.height - BOTTOM
        return bottom - (bottom - TOP) * self.y_axis.place(value) if drawable(value) else math.nan

    def spot(self, point: Point) -> Spot:
        """Where a point stands."""
        y = self.y(point.y)
        return Spot(self.x(point.x), y, point, tuple(self.y(end) - y for end in interval(point) or ()))


def draw_plot(plot: Plot) -> str:
    """The plot as an SVG element, empty where nothing can be drawn; title, legend and caption stand in the page."""
    series = [_drawable(part, log_x=plot.log_x) for part in plot.series]
    points = [point for part in series for point in part.points if drawable(point.y)]
    if not points and not any(part.band for part in series):
        return ""
    frame = _frame(plot, series, points)
    spots = [[frame.spot(point) for point in part.points] for part in series]
    spots = dodged(spots, [bool(part.band) or any(map(is_shaded, part.points)) for part in series])
    bare = sum(len(part.points) for part in series if part.joined) > MOST_MARKS
    words = Words(plot.y_label, plot.x_label)
    groups = "".join(
        _group(i, _area(frame, part) + _line(part, placed) + _points(i, part, placed, words, bare=bare))
        for i, (part, placed) in enumerate(zip(series, spots, strict=True))
    )
    drawn = f'<g class="many">{groups}</g>' if len(series) > NUM_LOOKS else groups
    ends = "".join(_course(part) for part in series)
    return svg((WIDTH, frame.height), _axes(frame, plot) + drawn, f"{words.y_label} over {words.x_label}{ends}")


def draw_dots(dots: Dots) -> str:
    """The dot plot as an SVG element, empty where nothing can be drawn."""
    points = [point for row in dots.rows for point in row.points if drawable(point.y)]
    if not points:
        return ""
    names = [wrapped(row.name, MOST_NAME, FONT) for row in dots.rows]
    left = 16 + max(text_width(line, FONT) for lines in names for line in lines)
    pitch = max(_ROW, _BETWEEN * len(dots.legend) + 6, _LINE * max(map(len, names)) + 6)
    top = TOP if len(dots.rows) > _MANY_ROWS else 8.0
    height = top + pitch * len(dots.rows) + BOTTOM
    axis = make_axis(_reached(points), most=max(2, int((WIDTH - left) / 50)))
    middles = [top + pitch * (i + 0.5) for i in range(len(dots.rows))]
    frame = Frame(min(left, MOST_NAME + 30), height, axis, axis)
    rows = "".join(_row_name(frame, *row, pitch) for row in zip(dots.rows, names, middles, strict=True))
    groups = "".join(
        _group(i, _row_points(frame, dots, i, middles)) for i in range(max(len(row.points) for row in dots.rows))
    )
    return svg((WIDTH, height), rows + _dots_axis(frame, dots, top) + groups, _dots_label(dots), turned=True)


def _drawable(series: Series, *, log_x: bool) -> Series:
    """The series without what has no place, in order of x where it is joined, and of bearable length."""
    points = [point for point in series.points if drawable(point.x, log=log_x)]
    if series.joined:
        points.sort(key=lambda point: point.x)
    every = -(-len(points) // MOST_POINTS) or 1
    points = [point for i, point in enumerate(points) if i % every == 0 or i == len(points) - 1]
    band = (part for part in series.band if drawable(part[0], log=log_x) and all(map(drawable, part)))
    return series._replace(points=tuple(points), band=tuple(sorted(band)))


def _frame(plot: Plot, series: Sequence[Series], points: Sequence[Point]) -> Frame:
    edges = [edge for part in series for edge in part.band]
    y_axis = make_axis([*_reached(points), *(y for _, *ends in edges for y in ends)], most=6)
    x_axis = make_axis([*(point.x for point in points), *(x for x, *_ in edges)], most=7, log=plot.log_x)
    left = 14 + max((text_width(label, FONT) for label in y_axis.labels), default=0.0)
    return Frame(left, SQUARE_HEIGHT if any(map(is_shaded, points)) else HEIGHT, x_axis, y_axis)


def _reached(points: Sequence[Point]) -> list[float]:
    """All that the axis of y must hold."""
    return [value for point in points for value in (point.y, *(interval(point) or ()))]


def _axes(frame: Frame, plot: Plot) -> str:
    right, bottom = WIDTH - RIGHT, frame.height - BOTTOM
    parts = [svg_text(4, 16, shortened(plot.y_label, WIDTH - 8, FONT), kind="name")]
    for tick, label in zip(frame.y_axis.ticks, frame.y_axis.labels, strict=True):
        y = frame.y(tick)
        parts.append(f'<path class="rule" d="M{frame.left:.1f} {y:.1f}H{right:g}"/>')
        parts.append(svg_text(frame.left - 7, y + 4.5, label, anchor="end"))
    for tick, label in zip(frame.x_axis.ticks, frame.x_axis.labels, strict=True):
        x = frame.x(tick)
        parts.append(f'<path class="rule" d="M{x:.1f} {bottom:g}v5"/>')
        parts.append(svg_text(x, bottom + 20, label, anchor="middle"))
    parts.append(f'<path class="rule base" d="M{frame.left:.1f} {bottom:g}H{right:g}"/>')
    name = shortened(plot.x_label, WIDTH - 8, FONT)
    middle = min((frame.left + right) / 2, WIDTH - 4 - text_width(name, FONT) / 2)
    parts.append(svg_text(middle, frame.height - 7, name, anchor="middle", kind="name"))
    return "".join(parts)


def _group(index: int, inside: str) -> str:
    return f'<g class="series c{look(index)[0]}" data-series="{index}">{inside}</g>'


def _points(index: int, series: Series, spots: Sequence[Spot], words: Words, *, bare: bool) -> str:
    shown = [spot for spot in spots if math.isfinite(spot.y)]
    return "".join(
        draw_point(spot, index, words.lines((series.name,), spot.point), bare=bare and series.joined and i < len(shown))
        for i, spot in enumerate(shown, start=1)
    )


def _line(series: Series, spots: Sequence[Spot]) -> str:
    """A line with gaps where y has no place, if the series is joined and has two points."""
    steps, pen = [], "M"
    for spot in spots if series.joined and len(spots) > 1 else ():
        known = math.isfinite(spot.y)
        if known:
            steps.append(f"{pen}{spot.x:.1f} {spot.y:.1f}")
        pen = "L" if known else "M"
    return f'<path class="line{" dashed" if series.dashed else ""}" d="{"".join(steps)}"/>' if steps else ""


def _area(frame: Frame, series: Series) -> str:
    if len(series.band) < 2:
        return ""
    there = [f"{frame.x(x):.1f} {frame.y(high):.1f}" for x, _, high in series.band]
    back = [f"{frame.x(x):.1f} {frame.y(low):.1f}" for x, low, _ in reversed(series.band)]
    return f'<path class="area" d="M{"L".join([*there, *back])}z"/>'


def _course(series: Series) -> str:
    """Where a series begins and ends, in words."""
    known = [point.y for point in series.points if drawable(point.y)]
    return f"; {series.name}: from {number_label(known[0])} to {number_label(known[-1])}" if known else ""


def _row_name(frame: Frame, row: Row, lines: Sequence[str], middle: float, pitch: float) -> str:
    top = middle - _LINE * (len(lines) - 1) / 2 + 4.5
    kind = "row marked" if row.marked else "row"
    back = f'<rect x="0" y="{middle - pitch / 2:.1f}" width="{WIDTH:g}" height="{pitch:g}"/>' if row.marked else ""
    said = "".join(svg_text(frame.left - 10, top + _LINE * i, line, anchor="end") for i, line in enumerate(lines))
    rule = f'<path class="rule" d="M{frame.left:.1f} {middle:.1f}H{WIDTH - RIGHT:g}"/>'
    return f'<g class="{kind}">{described([row.name])}{back}{rule}{said}</g>'


def _row_points(frame: Frame, dots: Dots, index: int, middles: Sequence[float]) -> str:
    """The values of one legend's entry in all rows."""
    name = dots.legend[index] if index < len(dots.legend) else ""
    down = _BETWEEN * (index - (len(dots.legend) - 1) / 2)
    drawn = []
    for row, middle in zip(dots.rows, middles, strict=True):
        point = row.points[index] if index < len(row.points) else None
        if point is not None and drawable(point.y):
            x = frame.x(point.y)
            ends = tuple(frame.x(end) - x for end in interval(point) or ())
            lines = Words(dots.x_label).lines((row.name, name), point)
            drawn.append(draw_point(Spot(x, middle + down, point, ends), index, lines, upright=False))
    return "".join(drawn)


def _dots_axis(frame: Frame, dots: Dots, top: float) -> str:
    """The values below, with many rows above them too, and what they are."""
    bottom = frame.height - BOTTOM
    heights = [bottom + 20, top - 8][: 2 if len(dots.rows) > _MANY_ROWS else 1]
    parts = []
    for tick, label in zip(frame.x_axis.ticks, frame.x_axis.labels, strict=True):
        x = frame.x(tick)
        parts.append(f'<path class="rule" d="M{x:.1f} {top:g}V{bottom + 5:g}"/>')
        parts += [svg_text(x, y, label, anchor="middle") for y in heights]
    name = shortened(dots.x_label, WIDTH - 8, FONT)
    middle = min((frame.left + WIDTH - RIGHT) / 2, WIDTH - 4 - text_width(name, FONT) / 2)
    return "".join(parts) + svg_text(middle, frame.height - 7, name, anchor="middle", kind="name")


def _dots_label(dots: Dots) -> str:
    return f"{dots.x_label} of {len(dots.rows)} rows"
