"""The accuracy of a family over its cost: trained networks, the fitted curve, and its prediction interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from trifold.report.figures import BLUE, ORANGE, new_figure, percent_ticks, save_figure, short_number, tidy

SHORT_RANGE = 12.0
"""Costs that differ by less than this factor get ticks at more than 1, 2 and 5."""


class Size(NamedTuple):
    """One network: its cost, its accuracy in [0, 1] and the ends of the interval around it; equal where there is none.

    trained: else it is a prediction, whose interval is the band's.
    """

    label: str
    multiply_adds: float
    accuracy: float
    low: float
    high: float
    trained: bool


class Level(NamedTuple):
    """The fitted accuracy at one cost with the ends of its prediction interval, in [0, 1]."""

    multiply_adds: float
    accuracy: float
    low: float
    high: float


class AccuracyCurve(NamedTuple):
    """What the picture shows; band: by rising cost, at least two."""

    sizes: tuple[Size, ...]
    band: tuple[Level, ...]
    interval: str


def draw_accuracy(curve: AccuracyCurve, path: str | Path, *, title: str = "") -> None:
    """Accuracy on test over multiply-adds: points with their intervals, the fitted line and its band, as a picture."""
    figure = new_figure(8, 4.6)
    axes = figure.subplots()
    costs = [level.multiply_adds for level in curve.band]
    lows, highs = [level.low for level in curve.band], [level.high for level in curve.band]
    axes.fill_between(costs, lows, highs, color=BLUE, alpha=0.13, linewidth=0, label=curve.interval)
    axes.plot(costs, [level.accuracy for level in curve.band], color=BLUE, label="fitted power law of the error")
    trained = [size for size in curve.sizes if size.trained]
    axes.errorbar(
        [size.multiply_adds for size in trained],
        [size.accuracy for size in trained],
        yerr=[[size.accuracy - size.low for size in trained], [size.high - size.accuracy for size in trained]],
        color=BLUE,
        marker="o",
        linestyle="none",
        elinewidth=1,
        capsize=3,
        zorder=3,
        label="trained: mean of its runs, 95 % interval",
    )
    if predicted := [size for size in curve.sizes if not size.trained]:
        values = [size.accuracy for size in predicted]
        axes.plot([size.multiply_adds for size in predicted], values, "D", color=ORANGE, mfc="white", label="predicted")
    axes.set(title=title, xlabel="multiply-adds for one image", ylabel="accuracy on test")
    axes.set_xscale("log")
    margin = (max(costs) / min(costs)) ** 0.06
    axes.set_xlim(min(costs) / margin, max(costs) * margin)
    low, high = _heights(curve)
    room = 0.16 * (high - low)
    axes.set_ylim(low, high + room)
    axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= min(1, high + room)])
    _cost_ticks(axes, max(costs) / min(costs))
    percent_ticks(axes)
    _label(axes, curve.sizes, high)
    figure.legend(frameon=False, loc="outside lower center", ncols=2, fontsize=9)
    tidy(axes)
    save_figure(figure, path)


def _heights(curve: AccuracyCurve) -> tuple[float, float]:
    """The least and the highest accuracy shown: all points, the line, and of wide intervals a part."""
    values = [size.accuracy for size in curve.sizes] + [level.accuracy for level in curve.band]
    lows = [size.low for size in curve.sizes] + [level.low for level in curve.band]
    highs = [size.high for size in curve.sizes] + [level.high for level in curve.band]
    least, most = min(values), max(values)
    room = 1.5 * max(most - least, 0.01)
    return max(min(lows), least - room), min(max(highs), most + room)


def _cost_ticks(axes: Axes, factor: float) -> None:
    """Ticks at round costs, enough of them on a short axis."""
    subs = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if factor < SHORT_RANGE else (1.0, 2.0, 5.0) if factor < 1000 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=30))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _label(axes: Axes, sizes: Sequence[Size], highest: float) -> None:
    """Names the points above their intervals, trained ones first, but none that would stand over another's name."""
    left, right = axes.get_xlim()
    apart = 0.08 * math.log(right / left)
    named: list[float] = []
    for size in sorted(sizes, key=lambda one: (not one.trained, one.multiply_adds)):
        place = math.log(size.multiply_adds)
        if any(abs(place - other) < apart for other in named):
            continue
        named.append(place)
        axes.annotate(
            size.label,
            (size.multiply_adds, min(size.high, highest) if size.trained else size.accuracy),
            xytext=(0, 4 if size.trained else 8),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8.5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.75},
        )
