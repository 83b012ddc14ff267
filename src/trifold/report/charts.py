"""Charts as SVG text whose colours follow the page that holds them, so that they are legible on light and dark."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator
from PIL import Image

from trifold.report.contents import Calibration, Rates
from trifold.report.figures import Confusion, Curves

WIDTH, HEIGHT = 400.0, 240.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 25.0, 12.0, 42.0
MOST_POINTS = 600
"""A line of more points is drawn through as many, evenly taken; twice what a wide screen can tell apart."""


class Line(NamedTuple):
    """A line of a chart; style: a class of the page's style sheet, blue, orange or grey. Gaps where y is not finite."""

    label: str
    style: str
    points: tuple[tuple[float, float], ...]


class Chart(NamedTuple):
    """A line chart; marked: the x of a vertical line with its label; share: y is in [0, 1] and shown in per cent."""

    title: str
    x_label: str
    lines: tuple[Line, ...]
    share: bool = False
    marked: tuple[float, str] | None = None


class Frame(NamedTuple):
    """The range of both axes, and their ticks."""

    x_ticks: tuple[float, ...]
    y_ticks: tuple[float, ...]
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        """Where a value stands, from the left."""
        low, high = self.x_range
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low)

    def y(self, value: float) -> float:
        """Where a value stands, from the top."""
        low, high = self.y_range
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)


def course_charts(curves: Curves, rates: Rates) -> tuple[Chart, ...]:
    """The charts of a run's course: losses, accuracy on minival and, where there are steps, the learning rate."""
    marked = (float(curves.chosen), f"kept: {curves.chosen}")

    def line(label: str, style: str, values: Sequence[float]) -> Line:
        return Line(label, style, tuple(zip(map(float, curves.epochs), map(float, values), strict=True)))

    losses = (
        line("train (augmented)", "blue", curves.train_loss),
        line("minival", "orange", curves.minival_loss),
    )
    accuracy = (line("minival", "orange", curves.minival_accuracy),)
    charts = [
        Chart("Loss", "epoch", losses, marked=marked),
        Chart("Accuracy", "epoch", accuracy, share=True, marked=marked),
    ]
    if rates.steps:
        points = tuple(zip(map(float, rates.steps), map(float, rates.values), strict=True))
        charts.append(Chart("Learning rate", "step", (Line("learning rate", "grey", points),)))
    return tuple(charts)


def frame(chart: Chart) -> Frame:
    """The axes that hold all of a chart's points: from 0 up, or for shares from the lowest tick to at most 1."""
    points = [point for line in chart.lines for point in line.points if math.isfinite(point[1])]
    xs, ys = [x for x, _ in points] or [0.0, 1.0], [y for _, y in points] or [0.0, 1.0]
    low, high = (min(ys), max(ys)) if chart.share else (min(0.0, *ys), max(ys))
    if high - low < (0.02 if chart.share else 1e-12):
        low, high = (max(0.0, low - 0.02), min(1.0, high + 0.02)) if chart.share else (low, low + 1.0)
    ticks = [float(tick) for tick in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]
    if chart.share:
        ticks = [tick for tick in ticks if -1e-9 < tick < 1 + 1e-9]
    left, right = (min(xs), max(xs)) if max(xs) > min(xs) else (min(xs) - 0.5, max(xs) + 0.5)
    x_ticks = MaxNLocator(6, integer=True).tick_values(left, right)
    return Frame(
        x_ticks=tuple(float(tick) for tick in x_ticks if left <= tick <= right),
        y_ticks=tuple(ticks),
        x_range=(left, right),
        y_range=(min(ticks[0], low), max(ticks[-1], high)),
    )


def draw_chart(chart: Chart) -> str:
    """The chart as an SVG element; its title and legend stand in the page."""
    axes = frame(chart)
    parts = [_axes(axes, chart.x_label, share_label if chart.share else number_label)]
    if chart.marked is not None and axes.x_range[0] <= chart.marked[0] <= axes.x_range[1]:
        parts.append(_mark(axes.x(chart.marked[0]), chart.marked[1], low=chart.share))
    parts += [_line(axes, line) for line in chart.lines]
    names = ", ".join(line.label for line in chart.lines)
    return _svg("".join(parts), f"{chart.title} ({names}) over {chart.x_label}s{_ends(chart)}")


def draw_reliability(calibration: Calibration) -> str:
    """The share that is correct over the stated probability, dots by their number of images, as an SVG element."""
    ticks = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    axes = Frame(ticks, ticks, (0.0, 1.0), (0.0, 1.0))
    most = max((part.images for part in calibration.bins), default=1)
    whole = f'<path class="line grey dashed" d="M{axes.x(0):.1f} {axes.y(0):.1f}L{axes.x(1):.1f} {axes.y(1):.1f}"/>'
    line = Line("", "blue thin", tuple((part.confidence, part.accuracy) for part in calibration.bins))
    dots = [
        f'<circle class="dot blue" cx="{axes.x(part.confidence):.1f}" cy="{axes.y(part.accuracy):.1f}" '
        f'r="{2 + 7 * math.sqrt(part.images / most):.1f}"/>'
        for part in calibration.bins
    ]
    parts = [_axes(axes, "stated probability", share_label, x_text=share_label), whole, _path(axes, line), *dots]
    values = "; ".join(
        f"{share_label(part.confidence)} stated, {share_label(part.accuracy)} correct, {part.images} images"
        for part in calibration.bins
    )
    return _svg("".join(parts), f"Reliability diagram: {values}")


def draw_heat_map(confusion: Confusion) -> str:
    """A data: URI of a PNG with a pixel for each cell: correct ones blue, wrong ones orange, clear where 0."""
    counts = np.asarray(confusion.counts, dtype=float)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    cells = np.zeros((*counts.shape, 4), dtype=np.uint8)
    cells[..., :3] = (213, 94, 0)
    cells[..., 3] = np.where(shares > 0, 255 * (0.25 + 0.75 * np.sqrt(shares)), 0).astype(np.uint8)
    own = np.arange(len(counts))
    cells[own, own, :3] = (0, 114, 178)
    cells[own, own, 3] = (255 * shares[own, own]).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(cells, "RGBA").save(file, "PNG", optimize=True)
    return data_uri(file.getvalue())


def data_uri(png: bytes) -> str:
    """A PNG file as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def number_label(value: float) -> str:
    """A tick's text: 0.25, 20, 2k, 1.5e-4."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    if 1e4 <= abs(value) < 1e9:
        return f"{value / 1e6:.4g}M" if abs(value) >= 1e6 else f"{value / 1e3:.4g}k"
    digits, _, power = f"{value:.3e}".partition("e")
    return f"{float(digits):g}e{int(power)}"


def share_label(value: float) -> str:
    """A share's text: 97.5 %."""
    return f"{100 * value:.3g}\u00a0%"


def _svg(inside: str, label: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{escape(label)}" '
        f'preserveAspectRatio="xMidYMid meet">{inside}</svg>'
    )


def _axes(
    axes: Frame, x_label: str, y_text: Callable[[float], str], *, x_text: Callable[[float], str] = number_label
) -> str:
    """Horizontal rules with their values, the values below, and the name of the horizontal axis."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for tick in axes.y_ticks:
        y = axes.y(tick)
        parts.append(f'<path class="rule" d="M{LEFT:g} {y:.1f}H{right:g}"/>')
        parts.append(f'<text x="{LEFT - 7:g}" y="{y + 4:.1f}" text-anchor="end">{y_text(tick)}</text>')
    for tick in axes.x_ticks:
        x = axes.x(tick)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 17:g}" text-anchor="middle">{x_text(tick)}</text>')
    middle = (LEFT + right) / 2
    parts.append(f'<text x="{middle:g}" y="{HEIGHT - 5:g}" text-anchor="middle">{escape(x_label)}</text>')
    return "".join(parts)


def _mark(x: float, label: str, *, low: bool) -> str:
    """A vertical line whose label stands where there is room: losses end low, accuracies high."""
    anchor, shift = ("end", -5) if x > WIDTH / 2 else ("start", 5)
    y = HEIGHT - BOTTOM - 8 if low else TOP + 10
    return (
        f'<path class="line green dashed" d="M{x:.1f} {TOP:g}V{HEIGHT - BOTTOM:g}"/>'
        f'<text class="mark" x="{x + shift:.1f}" y="{y:g}" text-anchor="{anchor}">{escape(label)}</text>'
    )


def _line(axes: Frame, line: Line) -> str:
    """The line; with few points also a dot at each."""
    path = _path(axes, line)
    if len(line.points) > 40:
        return path
    dots = (
        f'<circle class="dot {line.style}" cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="2.6"/>'
        for x, y in line.points
        if math.isfinite(y)
    )
    return path + "".join(dots)


def _path(axes: Frame, line: Line) -> str:
    every = -(-len(line.points) // MOST_POINTS) or 1
    points = [point for i, point in enumerate(line.points) if i % every == 0 or i == len(line.points) - 1]
    steps, pen = [], "M"
    for x, y in points:
        if math.isfinite(y):
            steps.append(f"{pen}{axes.x(x):.1f} {axes.y(y):.1f}")
            pen = "L"
        else:
            pen = "M"
    return f'<path class="line {line.style}" d="{"".join(steps)}"/>' if steps else ""


def _ends(chart: Chart) -> str:
    """Where each line begins and ends, in words."""
    text = share_label if chart.share else number_label
    known = [(line.label, [y for _, y in line.points if math.isfinite(y)]) for line in chart.lines]
    return "".join(f"; {label}: from {text(ys[0])} to {text(ys[-1])}" for label, ys in known if ys)
