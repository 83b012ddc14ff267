"""What a run's page says, as plain values."""

from __future__ import annotations

from typing import NamedTuple

from trifold.report.figures import Confusion, Curves

Cell = str | int | float | None


class Fact(NamedTuple):
    """A name and a value."""

    name: str
    value: str


class Headline(NamedTuple):
    """What was trained on what, and how many test images it got right.

    low, high: the 95 % interval of the accuracy, in [0, 1]. seeds: runs that the accuracy is the mean of.
    note: what must be known about the data, or empty. yardstick: a simpler method's name and accuracy on the same
    test images, or on some of them as its name then says, if known. scores: what else was measured on test.
    """

    data: str
    network: str
    run: str
    correct: int
    images: int
    low: float
    high: float
    seeds: int = 1
    note: str = ""
    yardstick: tuple[str, float] | None = None
    scores: tuple[Fact, ...] = ()


class KeyFigures(NamedTuple):
    """The run in numbers; None where one is not known.

    size_mib: of the saved weights. seconds: wall time of the training. images_per_second: while training, augmented.
    waiting: share of the training's time spent waiting for data, in [0, 1].
    """

    parameters: int
    multiply_adds: int
    size_mib: float | None
    epochs: int
    seconds: float
    images_per_second: float | None = None
    waiting: float | None = None


class Rates(NamedTuple):
    """The learning rate at some or all steps."""

    steps: tuple[int, ...]
    values: tuple[float, ...]


class ConfusedPair(NamedTuple):
    """A confusion: num images of the true class were given another; share: of the true class's, in [0, 1].

    thumbnails: PNG files of some of these images.
    """

    true: str
    predicted: str
    num: int
    share: float
    thumbnails: tuple[bytes, ...] = ()


class ClassRow(NamedTuple):
    """A class on test: its images, and shares in [0, 1] or None where not defined."""

    name: str
    images: int
    precision: float | None
    recall: float | None
    f1: float | None


class CalibrationBin(NamedTuple):
    """Images by their highest probability: its mean, the share that is correct, their number (at least 1)."""

    confidence: float
    accuracy: float
    images: int


class Calibration(NamedTuple):
    """The expected calibration error, in [0, 1], and the bins that hold images."""

    error: float
    bins: tuple[CalibrationBin, ...]


class Grid(NamedTuple):
    """A table: whole numbers are shown in full, others with three digits; total: a last row, or empty."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    total: tuple[Cell, ...] = ()


class Setting(NamedTuple):
    """A field of the recipe, and what the recipe it was made from has there."""

    name: str
    value: str
    base: str


class Recipe(NamedTuple):
    """A recipe's name, that of its base, and every field."""

    name: str
    base: str
    settings: tuple[Setting, ...]


class Event(NamedTuple):
    """Something out of the ordinary in the log: when ("epoch 3, step 120"), and what ("resumed")."""

    when: str
    what: str


class RunPage(NamedTuple):
    """Everything on the page of one run, in its order.

    confusion and class_rows: on test. split: how the split was made and its sizes. cautions: what else the reader
    should not conclude, beside what the page says by itself.
    """

    headline: Headline
    key: KeyFigures
    curves: Curves
    rates: Rates
    confusion: Confusion
    pairs: tuple[ConfusedPair, ...]
    class_rows: tuple[ClassRow, ...]
    calibration: Calibration
    cost: Grid
    recipe: Recipe
    machine: tuple[Fact, ...]
    versions: tuple[Fact, ...]
    split: tuple[Fact, ...]
    events: tuple[Event, ...] = ()
    cautions: tuple[str, ...] = ()
