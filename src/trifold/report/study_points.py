"""Points of a study's charts as SVG: a mark, its interval, and in words what it is."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from trifold.report.charts import number_label
from trifold.report.study_axes import drawable
from trifold.report.study_contents import Point
from trifold.report.study_markup import described, linked, look

CIVIDIS = ("#00224e", "#35456c", "#666970", "#948e77", "#c8b866", "#fee838")
"""matplotlib's scale of this name at even steps: it grows lighter throughout, for colour-blind readers too."""

_CAP = 3.0
_SHADED_SIZE = 1.7
_APART = 9.0
"""Marks whose middles are nearer than this overlap."""
_WIDEST = 44.0
"""All that points at the same x are spread over."""
_LEAST_ROOM = 24.0
"""Points are not moved where the next ones are nearer than this."""


class Spot(NamedTuple):
    """A point where it is drawn, in the drawing's units; ends: of its interval from there, none where it has none."""

    x: float
    y: float
    point: Point
    ends: tuple[float, ...] = ()


class Words(NamedTuple):
    """What a point's values are called; x_label is empty where x means nothing."""

    y_label: str
    x_label: str = ""

    def lines(self, names: Sequence[str], point: Point) -> tuple[str, ...]:
        """What a reader is told of the point, line by line."""
        x = f"{self.x_label}: {number_label(point.x)}" if self.x_label else ""
        low, high = interval(point) or (None, None)
        spread = "" if low is None or high is None else f" ({number_label(low)} to {number_label(high)})"
        return (*names, point.label, x, f"{self.y_label}: {number_label(point.y)}{spread}")


def interval(point: Point) -> tuple[float, float] | None:
    """The point's interval where both ends are known and finite."""
    low, high = point.low, point.high
    return (low, high) if low is not None and high is not None and drawable(low) and drawable(high) else None


def shade_colour(shade: float) -> str:
    """The colour of a share of the scale, in [0, 1]; what lies beyond takes the end's."""
    place = min(1.0, max(0.0, shade)) * (len(CIVIDIS) - 1)
    step = min(int(place), len(CIVIDIS) - 2)
    pairs = [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in CIVIDIS[step : step + 2]]
    mixed = (round(a + (place - step) * (b - a)) for a, b in zip(*pairs, strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def is_shaded(point: Point) -> bool:
    """Whether the point takes its colour from the scale."""
    return point.shade is not None and math.isfinite(point.shade)


def draw_point(spot: Spot, index: int, lines: Sequence[str], *, bare: bool = False, upright: bool = True) -> str:
    """The point of series `index`; bare: its mark shows only when chosen. upright: the interval runs up and down."""
    shaded = spot.point.shade is not None and is_shaded(spot.point)
    fill = f' style="fill:{shade_colour(spot.point.shade or 0.0)}"' if shaded else ""
    size = f' transform="scale({_SHADED_SIZE:g})"' if shaded else ""
    mark = f'<path class="mark"{size}{fill} d="{look(index)[1]}"/>'
    inside = described(lines) + _interval_path(spot.ends, upright=upright) + mark
    kind = "point bare" if bare else "point"
    drawn = f'<g class="{kind}" transform="translate({spot.x:.1f} {spot.y:.1f})">{inside}</g>'
    return linked(drawn, spot.point.link)


def _interval_path(ends: Sequence[float], *, upright: bool) -> str:
    if not ends:
        return ""
    low, high = ends
    caps = (
        f"M0 {low:.1f}V{high:.1f}" + "".join(f"M{-_CAP:g} {end:.1f}h{2 * _CAP:g}" for end in ends)
        if upright
        else f"M{low:.1f} 0H{high:.1f}" + "".join(f"M{end:.1f} {-_CAP:g}v{2 * _CAP:g}" for end in ends)
    )
    return f'<path class="interval" d="{caps}"/>'


def dodged(series: Sequence[Sequence[Spot]], still: Sequence[bool]) -> list[list[Spot]]:
    """The series with points at the same x moved apart, if some overlap there; still: those that keep their place."""
    columns = _columns(series, still)
    room = min((b - a for a, b in pairwise(sorted(columns))), default=math.inf)
    if room < _LEAST_ROOM or not any(_overlap(spots) for spots in columns.values()):
        return [list(spots) for spots in series]
    moving = [i for i, stays in enumerate(still) if not stays]
    step = min(_APART, min(_WIDEST, 0.8 * room) / len(moving))
    moves = {i: step * (place - (len(moving) - 1) / 2) for place, i in enumerate(moving)}
    return [[spot._replace(x=spot.x + moves.get(i, 0.0)) for spot in spots] for i, spots in enumerate(series)]


def _columns(series: Sequence[Sequence[Spot]], still: Sequence[bool]) -> dict[float, list[tuple[int, Spot]]]:
    """The points that may move, each with its series, by where they stand from the left."""
    columns: dict[float, list[tuple[int, Spot]]] = defaultdict(list)
    for i, spots in enumerate(series):
        for spot in () if still[i] else spots:
            if math.isfinite(spot.y):
                columns[round(spot.x, 1)].append((i, spot))
    return columns


def _overlap(column: Sequence[tuple[int, Spot]]) -> bool:
    """Whether points of two series overlap."""
    reach = sorted((*_reach(spot), i) for i, spot in column)
    return any(low < high and i != j for (_, high, i), (low, _, j) in pairwise(reach))


def _reach(spot: Spot) -> tuple[float, float]:
    """From where to where a point and its interval are drawn."""
    ends = (*spot.ends, -_APART / 2, _APART / 2)
    return spot.y + min(ends), spot.y + max(ends)
