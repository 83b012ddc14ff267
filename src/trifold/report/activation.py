"""Class activation maps beside their images: one row an image, one column a network."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from trifold.report.figures import DPI, save_figure, short_number

Pixels = npt.NDArray[np.uint8]
"""(height, width) grey or (height, width, 3) RGB."""

COLOURS = "inferno"
"""Dark to bright in even steps of lightness, so also without colour vision (matplotlib's perceptually uniform maps)."""
STRENGTH = 0.6
"""Share of the colour in a pixel; the rest is the image in grey."""

CELL, GAP, MARGIN, BAR = 1.8, 0.14, 0.16, 0.75
"""Inches: a picture's side, between pictures, around all, for the colour bar with its numbers."""
LINE, SIZE = 0.155, 8
"""Inches from line to line of the text, and its size in points."""
LETTERS = 26
"""Letters of a line that fit under a picture."""


class Panel(NamedTuple):
    """One network's map over the image as it saw it.

    heat: (height, width) as the pixels, what each pixel adds to the class's logit. lines: what stands below.
    """

    pixels: Pixels
    heat: npt.NDArray[np.float64]
    lines: tuple[str, ...]


class Row(NamedTuple):
    """One image, what stands below it, and a panel for each column."""

    pixels: Pixels
    lines: tuple[str, ...]
    panels: tuple[Panel, ...]

    @property
    def highest(self) -> float:
        """Where the row's colour scale, from 0, ends: the highest value of all its panels; 1 if none is above 0."""
        highest = max(float(panel.heat.max()) for panel in self.panels)
        return highest if highest > 0 else 1.0


class ActivationMaps(NamedTuple):
    """The whole picture; columns: the lines over each network's column."""

    columns: tuple[tuple[str, ...], ...]
    rows: tuple[Row, ...]


def overlaid(panel: Panel, highest: float) -> Pixels:
    """The panel as pixels, (height, width, 3): colour of its heat from 0 to highest over the image in grey.

    What is below 0 has the colour of 0.
    """
    grey = panel.pixels if panel.pixels.ndim == 2 else panel.pixels @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    colours = matplotlib.colormaps[COLOURS](np.clip(panel.heat / highest, 0, 1))[..., :3]
    mixed = STRENGTH * colours + (1 - STRENGTH) * grey[..., None] / 255
    return np.round(255 * mixed).astype(np.uint8)


def draw_activation_maps(maps: ActivationMaps, path: str | Path) -> None:
    """The images and maps as a PNG; each row has a colour scale of its own, the same for all its panels."""
    above = LINE * max(len(lines) for lines in maps.columns) + 0.08
    below = (
        LINE * max(len(lines) for row in maps.rows for lines in (row.lines, *(panel.lines for panel in row.panels)))
        + 0.16
    )
    width = 2 * MARGIN + (len(maps.columns) + 1) * (CELL + GAP) + BAR
    height = 2 * MARGIN + above + len(maps.rows) * (CELL + below)
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    for number, lines in enumerate((("image",), *maps.columns)):
        _write(figure, lines, x=_left(number) + CELL / 2, y=MARGIN + above - 0.06, upwards=True)
    for number, row in enumerate(maps.rows):
        top = MARGIN + above + number * (CELL + below)
        _show(figure, row.pixels, row.lines, x=_left(0), top=top)
        for column, panel in enumerate(row.panels, start=1):
            _show(figure, overlaid(panel, row.highest), panel.lines, x=_left(column), top=top)
        _draw_scale(_axes(figure, _left(len(row.panels) + 1), top, 0.14, CELL), row.highest)
    save_figure(figure, path)


def _left(column: int) -> float:
    """Inches from the left edge to a column of pictures."""
    return MARGIN + column * (CELL + GAP)


def _axes(figure: Figure, x: float, top: float, width: float, height: float) -> Axes:
    """Axes so many inches from the left and upper edge."""
    whole_width, whole_height = figure.get_size_inches()
    return figure.add_axes(
        (x / whole_width, 1 - (top + height) / whole_height, width / whole_width, height / whole_height)
    )


def _show(figure: Figure, pixels: Pixels, lines: tuple[str, ...], *, x: float, top: float) -> None:
    """An image whose pixels stay squares, and lines centred below."""
    axes = _axes(figure, x, top, CELL, CELL)
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)  # matplotlib repeats pixels where it enlarges by three or more
    axes.set_axis_off()
    _write(figure, lines, x=x + CELL / 2, y=top + CELL + 0.06, upwards=False)


def _write(figure: Figure, lines: tuple[str, ...], *, x: float, y: float, upwards: bool) -> None:
    """Lines centred at x, ending at y if upwards, else beginning there; in inches from the upper left corner."""
    width, height = figure.get_size_inches()
    for number, line in enumerate(lines):
        place = y - LINE * (len(lines) - 1 - number) if upwards else y + LINE * number
        figure.text(
            x / width,
            1 - place / height,
            shortened(line),
            ha="center",
            va="bottom" if upwards else "top",
            fontsize=SIZE,
            parse_math=False,
        )


def shortened(line: str) -> str:
    """The line, or its two ends with an ellipsis between them where it has more letters than fit."""
    if len(line) <= LETTERS:
        return line
    half = (LETTERS - 1) // 2
    return f"{line[: LETTERS - 1 - half]}…{line[-half:]}"


def _draw_scale(axes: Axes, highest: float) -> None:
    """The colours as they lie over mid-grey, from 0 to highest."""
    ramp = Panel(np.full((256, 1), 128, np.uint8), np.linspace(1, 0, 256)[:, None], ())
    axes.imshow(overlaid(ramp, 1.0), aspect="auto", extent=(0, 1, 0, highest))
    axes.set_xticks([])
    axes.yaxis.tick_right()
    axes.set_yticks([0, highest / 2, highest], ["≤ 0", short_number(highest / 2), short_number(highest)])
    axes.tick_params(labelsize=SIZE, length=2)
    axes.yaxis.set_label_position("right")
    axes.set_ylabel("adds to the logit", fontsize=SIZE)
