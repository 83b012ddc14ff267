"""Pictures: each is figure data, a small tuple, first and a drawing of it second."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

# Okabe and Ito's colours, told apart by colour-blind readers; marks and line styles differ as well.
BLUE, ORANGE, PURPLE, GREEN, GREY = "#0072B2", "#D55E00", "#CC79A7", "#009E73", "#595959"
DPI = 150
MAX_NUMBERED = 20
"""A confusion matrix with more classes is drawn without numbers and class names."""


class Curves(NamedTuple):
    """A run's course: one value an epoch; accuracies in [0, 1]; chosen: the epoch whose weights were kept."""

    epochs: tuple[int, ...]
    train_loss: tuple[float, ...]
    minival_loss: tuple[float, ...]
    minival_accuracy: tuple[float, ...]
    chosen: int


class Confusion(NamedTuple):
    """Counts: row = true class, column = predicted class."""

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


class BudgetPoint(NamedTuple):
    """One run: its cost and its test accuracy with the interval around it, in [0, 1]."""

    label: str
    multiply_adds: int
    accuracy: float
    low: float
    high: float


class FamilyRow(NamedTuple):
    """One member of a scaled family; resolution in pixels."""

    label: str
    phi: float
    multiply_adds: int
    parameters: int
    activations: int
    resolution: int


def short_number(value: float) -> str:
    """The number with at most three digits and K, M, G or T: 388M, 5.29M, 1.2K."""
    for power, unit in ((12, "T"), (9, "G"), (6, "M"), (3, "K")):
        if abs(value) >= 0.9995 * 10**power:
            return f"{value / 10**power:.3g}{unit}"
    return f"{value:.3g}"


def percent(share: float) -> str:
    """The share with one decimal: 98.6 %."""
    return f"{100 * share:.1f} %"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; width and height in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Axes) -> None:
    """The look that all axes have."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Writes the picture under a temporary name, then renames it."""
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        with warnings.catch_warnings():  # a class name in a script that the font lacks is drawn as boxes
            warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
            figure.savefig(temporary, facecolor="white")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def percent_ticks(axes: Axes) -> None:
    """The vertical axis's labels in per cent, none above 100 %."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %" if value < 1.00001 else ""))


def draw_curves(curves: Curves, path: str | Path) -> None:
    """Losses and minival accuracy over the epochs, the chosen epoch marked, as a PNG."""
    figure = new_figure(9, 3.4)
    losses, accuracy = figure.subplots(1, 2)
    dots = {"marker": "o", "markersize": 3} if len(curves.epochs) < 60 else {}
    losses.plot(curves.epochs, curves.train_loss, color=BLUE, label="train (augmented, smoothed labels)", **dots)
    losses.plot(curves.epochs, curves.minival_loss, color=ORANGE, linestyle="--", label="minival", **dots)
    losses.set(title="Loss", xlabel="epoch", ylim=(0, None))
    losses.legend(frameon=False)
    accuracy.plot(curves.epochs, curves.minival_accuracy, color=ORANGE, linestyle="--", **dots)
    best = curves.minival_accuracy[curves.epochs.index(curves.chosen)]
    accuracy.plot(
        [curves.chosen], [best], "D", color=GREEN, markersize=8, label=f"kept: epoch {curves.chosen}, {percent(best)}"
    )
    accuracy.set(title="Accuracy on minival", xlabel="epoch")
    accuracy.legend(frameon=False, loc="lower right")
    percent_ticks(accuracy)
    for axes in (losses, accuracy):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        tidy(axes)
    save_figure(figure, path)


def draw_confusion(confusion: Confusion, path: str | Path) -> None:
    """The matrix as shares of each true class, with the counts written in where there is room, as a PNG."""
    num = len(confusion.classes)
    numbered = num <= MAX_NUMBERED
    side = min(9.0, max(4.2, 2.2 + 0.45 * num)) if numbered else 7.0
    figure = new_figure(side + 0.6, side)
    axes = figure.subplots()
    shares = [[count / max(1, sum(row)) for count in row] for row in confusion.counts]
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    bar.outline.set_visible(False)
    if numbered:
        names = [name if len(name) <= 14 else name[:13] + "…" for name in confusion.classes]
        tilt = max(map(len, names)) > 3
        axes.set_xticks(range(num), names, rotation=45 if tilt else 0, ha="right" if tilt else "center")
        axes.set_yticks(range(num), names)
        for i, row in enumerate(confusion.counts):
            for j, count in enumerate(row):
                if count:
                    colour = "white" if shares[i][j] > 0.55 else "black"
                    axes.text(j, i, str(count), ha="center", va="center", color=colour, fontsize=8)
    correct, total = sum(row[i] for i, row in enumerate(confusion.counts)), sum(map(sum, confusion.counts))
    axes.set(title=f"Test: {correct} of {total} correct", xlabel="predicted class", ylabel="true class")
    save_figure(figure, path)


def draw_budgets(
    points: Sequence[BudgetPoint], path: str | Path, *, nearest: float | None = None, title: str = ""
) -> None:
    """Test accuracy with its 95 % interval over multiply-adds, and nearest neighbours as a line, as a PNG."""
    figure = new_figure(7, 3.8)
    axes = figure.subplots()
    ordered = sorted(points, key=lambda point: point.multiply_adds)
    costs = [point.multiply_adds for point in ordered]
    values = [point.accuracy for point in ordered]
    below = [max(0.0, point.accuracy - point.low) for point in ordered]
    above = [max(0.0, point.high - point.accuracy) for point in ordered]
    axes.errorbar(
        costs, values, yerr=[below, above], color=BLUE, marker="o", capsize=4, label="scaled network, 95 % interval"
    )
    for point in ordered:
        axes.annotate(
            f"{point.label}\n{percent(point.accuracy)}",
            (point.multiply_adds, point.high),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    if nearest is not None:
        axes.axhline(nearest, color=ORANGE, linestyle="--", label=f"three nearest neighbours, {percent(nearest)}")
    lowest = min([point.low for point in ordered] + ([nearest] if nearest is not None else []))
    highest = max([point.high for point in ordered] + ([nearest] if nearest is not None else []))
    room = max(0.01, highest - lowest)
    axes.set(title=title, xlabel="multiply-adds for one image", ylabel="accuracy on test")
    axes.set_xlim(min(costs) / 1.6, max(costs) * 1.6)
    axes.set_ylim(max(0.0, lowest - 0.25 * room), highest + 0.55 * room)
    axes.set_yticks([tick for tick in axes.get_yticks() if axes.get_ylim()[0] <= tick <= 1])
    _log_costs(axes, costs)
    percent_ticks(axes)
    axes.legend(frameon=False, loc="upper left", ncols=2, fontsize=9)
    tidy(axes)
    save_figure(figure, path)


def _log_costs(axes: Axes, costs: Sequence[float]) -> None:
    """A logarithmic x axis with a tick at each cost."""
    axes.set_xscale("log")
    axes.set_xticks(list(costs), [short_number(value) for value in costs])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", length=0)


class Panel(NamedTuple):
    """One panel of the family picture: a field of FamilyRow, its title, and whether its axis is logarithmic."""

    field: str
    title: str
    logarithmic: bool


FAMILY_PANELS = (
    Panel("multiply_adds", "Multiply-adds", True),
    Panel("parameters", "Parameters", True),
    Panel("activations", "Activations", True),
    Panel("resolution", "Resolution (pixels)", False),
)


def draw_family(rows: Sequence[FamilyRow], path: str | Path, *, title: str = "") -> None:
    """Multiply-adds, parameters, activations and resolution of a family's members over phi, as a PNG.

    A dotted line shows what exact doubling of the multiply-adds with each phi would give, from the first member.
    """
    figure = new_figure(9.5, 6.4)
    if title:
        figure.suptitle(title)
    ordered = sorted(rows, key=lambda row: row.phi)
    phis = [row.phi for row in ordered]
    colours = (BLUE, ORANGE, PURPLE, GREEN)
    for panel, axes, colour in zip(FAMILY_PANELS, figure.subplots(2, 2).flat, colours, strict=True):
        values = [getattr(row, panel.field) for row in ordered]
        if panel.field == "multiply_adds" and len(ordered) > 1:
            doubled = [values[0] * 2 ** (phi - phis[0]) for phi in phis]
            axes.plot(phis, doubled, ":", color=GREY, label="doubling with each phi")
        axes.plot(phis, values, "-o", color=colour, markersize=4)
        _number_points(axes, phis, values, panel)
        axes.set(title=panel.title, xlabel="phi")
        if panel.logarithmic:
            axes.set_yscale("log")
            axes.set_ylim(min(values) / 2, max(values) * 3)
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
        else:
            axes.set_ylim(0, max(values) * 1.2)
        if panel.field == "multiply_adds" and len(ordered) > 1:
            axes.legend(frameon=False, loc="lower right", fontsize=8)
        shown = phis[:: _every(phis)]
        axes.set_xticks(shown, [f"{phi:g}" for phi in shown])
        span = max(phis) - min(phis) or 1
        axes.set_xlim(min(phis) - 0.17 * span, max(phis) + 0.06 * span)
        tidy(axes)
    save_figure(figure, path)


def _number_points(axes: Axes, phis: Sequence[float], values: Sequence[float], panel: Panel) -> None:
    """Writes the value above some points, at most nine, so that the labels keep apart."""
    for phi, value in list(zip(phis, values, strict=True))[:: _every(phis)]:
        axes.annotate(
            short_number(value) if panel.logarithmic else f"{value:g}",
            (phi, value),
            xytext=(-5, 3),
            textcoords="offset points",
            ha="right",
            fontsize=7.5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.3, "alpha": 0.85},
        )


def _every(phis: Sequence[float]) -> int:
    """The step at which at most nine of these points are labelled."""
    return math.ceil(len(phis) / 9)
