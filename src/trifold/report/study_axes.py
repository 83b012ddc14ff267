"""Axes of a study's charts: their range, and ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from matplotlib.ticker import MaxNLocator

from trifold.report.charts import number_label

MARGIN = 0.05
"""What an axis goes beyond its values at either end, as a share of their range."""
_LARGEST = 1e100
"""A number beyond this is no value to draw; it leaves room to compute with those below."""
_MOST_DOUBLINGS = 7


class Axis(NamedTuple):
    """The range of an axis, and its ticks with their texts."""

    low: float
    high: float
    ticks: tuple[float, ...]
    labels: tuple[str, ...]
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value stands: 0 at the lower end, 1 at the upper."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return (value - low) / (high - low)


def drawable(value: float | None, *, log: bool = False) -> bool:
    """Whether an axis has a place for the value."""
    return value is not None and math.isfinite(value) and abs(value) < _LARGEST and (not log or value > 1 / _LARGEST)


def make_axis(values: Iterable[float], *, most: int, log: bool = False) -> Axis:
    """The axis that holds all values with some room beside them, with about `most` ticks at the most."""
    found = [value for value in values if drawable(value, log=log)]
    return _log_axis(found or [1.0], most) if log else _linear_axis(found or [0.0], most)


def _linear_axis(values: Sequence[float], most: int) -> Axis:
    least, largest = min(values), max(values)
    size = max(abs(least), abs(largest))
    if largest - least <= 1e-9 * size or size < 1 / _LARGEST:
        room = 0.05 * size if size > 1 / _LARGEST else 1.0
        least, largest = least - room, largest + room
    margin = MARGIN * (largest - least)
    low, high = least - margin, largest + margin
    return Axis(low, high, *_labelled(_round_ticks(low, high, most)))


def _log_axis(values: Sequence[float], most: int) -> Axis:
    least, largest = min(values), max(values)
    if largest / least < 1.05:
        least, largest = least / 1.5, largest * 1.5
    margin = (largest / least) ** MARGIN
    low, high = least / margin, largest * margin
    if math.log2(high / low) <= _MOST_DOUBLINGS:
        first = min(values)
        if float(f"{first:.1e}") != first:
            first = float(f"{first:.0e}")
        ticks = [first * 2**power for power in range(2 * _MOST_DOUBLINGS)]
    else:
        powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
        ticks = [float(f"1e{power}") for power in powers[:: -(-len(powers) // most)]]
    inside = [tick for tick in ticks if low <= tick <= high]
    return Axis(low, high, *_labelled(inside if len(inside) > 1 else _round_ticks(low, high, most)), log=True)


def _round_ticks(low: float, high: float, most: int) -> list[float]:
    ticks = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in ticks if low <= tick <= high]


def _labelled(ticks: Sequence[float]) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """The ticks with their texts, of as many digits as tell them apart."""
    labels = [number_label(tick) for tick in ticks]
    if len(set(labels)) < len(labels):
        labels = [f"{tick:.12g}" for tick in ticks]
    return tuple(ticks), tuple(labels)
