"""From a budget to the largest network of a family that meets every limit, exactly, on a grid of phi.

A network is a step function of phi: layers, channels and pixels are rounded. `fit` therefore answers on the grid
phi = k / 1000 in [-3, 12], so that the phi it prints gives the same network again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import pairwise

from trifold.architecture import MAX_RESOLUTION, SHORTCUT_ALWAYS, Architecture, Stage, inner_channels
from trifold.cost import Cost, cost
from trifold.errors import ImpossibleBudget, InvalidInput
from trifold.scaling import (
    PAPER,
    PHI_MAX,
    PHI_MIN,
    Coefficients,
    Multipliers,
    Rounding,
    round_channels,
    round_resolution,
    scale,
)

STEPS_PER_PHI = 1000
_FIRST, _LAST = round(PHI_MIN * STEPS_PER_PHI), round(PHI_MAX * STEPS_PER_PHI)

LIMITS: dict[str, Callable[[Cost], int]] = {
    "multiply_adds": lambda spent: spent.multiply_adds,
    "parameters": lambda spent: spent.parameters,
    "activations": lambda spent: spent.activations,
    "file_bytes": lambda spent: spent.file_bytes,
}
"""What a budget may limit, and where that stands in a Cost. Peak memory and latency join here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Upper limits for one image; None means no limit.

    multiply_adds, parameters, activations (sum of elements): as in `Cost`.
    file_bytes: size of the float32 weight file, header included.
    min_resolution, max_resolution: pixels; beyond them depth and width go on alone.

    Raises ImpossibleBudget if no limit is given or one is out of range.
    """

    multiply_adds: float | None = None
    parameters: float | None = None
    activations: float | None = None
    file_bytes: float | None = None
    min_resolution: int | None = None
    max_resolution: int | None = None

    def __post_init__(self) -> None:
        if not self.limits and self.min_resolution is None and self.max_resolution is None:
            raise ImpossibleBudget(f"budget must limit at least one of {', '.join(f.name for f in fields(self))}")
        for name, value in self.limits.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 1e18:
                raise ImpossibleBudget(f"budget: {name} must be a number from 1 to 1e18, got {value!r}")
        for name, size in (("min_resolution", self.min_resolution), ("max_resolution", self.max_resolution)):
            if size is not None and (type(size) is not int or not 4 <= size <= MAX_RESOLUTION):
                raise ImpossibleBudget(f"budget: {name} must be 4 to {MAX_RESOLUTION} pixels, got {size!r}")
        if (self.min_resolution or 0) > (self.max_resolution or MAX_RESOLUTION):
            raise ImpossibleBudget(f"budget: min_resolution {self.min_resolution} is over max {self.max_resolution}")

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by name."""
        return {name: value for name in LIMITS if (value := getattr(self, name)) is not None}

    def broken_by(self, spent: Cost) -> tuple[str, ...]:
        """The names of the limits that a cost exceeds."""
        return tuple(name for name, limit in self.limits.items() if LIMITS[name](spent) > limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The largest network under a budget.

    phi: smallest value of the grid that gives this network.
    multipliers: alpha^phi, beta^phi, gamma^phi; where the resolution was held in the budget's range, its pixels over
    the baseline's.
    binding: the limits that the next larger network of the grid would break; "phi" where the dial itself ends;
    "description" where the next one is larger than a description may be.
    width_adjustment: what the width was multiplied by to spend the remainder; 1 if not asked.
    """

    phi: float
    multipliers: Multipliers
    architecture: Architecture
    cost: Cost
    budget: Budget
    binding: tuple[str, ...]
    width_adjustment: float = 1.0

    @property
    def unused(self) -> dict[str, float]:
        """For each limit the share that rounding left unused, in [0, 1)."""
        return {name: 1 - LIMITS[name](self.cost) / limit for name, limit in self.budget.limits.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    """One network of the grid; larger means more multiply-adds, then more parameters."""

    k: int
    multipliers: Multipliers
    architecture: Architecture
    cost: Cost

    @property
    def key(self) -> tuple[int, int]:
        return self.cost.multiply_adds, self.cost.parameters


def fit(
    architecture: Architecture,
    budget: Budget,
    coefficients: Coefficients = PAPER,
    *,
    rounding: Rounding | None = None,
    num_classes: int = 1000,
    in_channels: int = 3,
    fill_width: bool = False,
) -> Fit:
    """The largest network phi reaches under every limit; no phi of the grid gives a larger one within them.

    fill_width: spend what rounding left unused on a wider network of the same depth and resolution.

    Raises ImpossibleBudget naming the limit and the least this family can do, if even the smallest network is over.
    """
    rounding = rounding or Rounding()

    @cache
    def at(k: int) -> _Point | None:
        try:
            multipliers, scaled = _scaled(architecture, coefficients, k / STEPS_PER_PHI, rounding, budget)
        except InvalidInput:
            return None
        spent = cost(scaled, num_classes=num_classes, in_channels=in_channels)
        return _Point(k=k, multipliers=multipliers, architecture=scaled, cost=spent)

    best, following = _largest(at, budget, _pieces(architecture, coefficients, rounding))
    if following is None:
        binding: tuple[str, ...] = ("phi",) if at(_LAST) else ("description",)
    else:
        binding = budget.broken_by(following.cost)
    found = Fit(
        phi=best.k / STEPS_PER_PHI,
        multipliers=best.multipliers,
        architecture=best.architecture,
        cost=best.cost,
        budget=budget,
        binding=binding,
    )
    if not fill_width:
        return found
    return _fill_width(found, architecture, rounding, num_classes=num_classes, in_channels=in_channels)


def _scaled(
    architecture: Architecture, coefficients: Coefficients, phi: float, rounding: Rounding, budget: Budget
) -> tuple[Multipliers, Architecture]:
    """The network at phi with its resolution held in the budget's range, and the multipliers that give it.

    Raises InvalidInput where it is larger than a description may be.
    """
    factor = coefficients.gamma**phi
    free = round_resolution(architecture.resolution, factor, rounding)
    pixels = max(free, budget.min_resolution or 0)
    if budget.max_resolution is not None:
        pixels = min(pixels, budget.max_resolution)
    body = Multipliers(depth=coefficients.alpha**phi, width=coefficients.beta**phi)
    scaled = replace(scale(architecture, body, rounding), resolution=pixels)
    return replace(body, resolution=factor if pixels == free else pixels / architecture.resolution), scaled


def _largest(
    at: Callable[[int], _Point | None], budget: Budget, pieces: list[tuple[int, int]]
) -> tuple[_Point, _Point | None]:
    """The largest network within the limits, and the next larger one of the grid (None where there is none).

    pieces: ranges of k that make up the grid; in each of them every count only grows with k, so bisection finds both.
    """

    def within(k: int) -> bool:
        point = at(k)
        return point is not None and not budget.broken_by(point.cost)

    def up_to(low: int, high: int, key: tuple[int, int]) -> int:
        return _last_true(lambda k: (point := at(k)) is not None and point.key <= key, low - 1, high)

    ends = [(low, _last_true(within, low, high)) for low, high in pieces if within(low)]
    tops = [(low, point) for low, k in ends if (point := at(k)) is not None]
    if not tops:
        starts = [point for low, _ in pieces if (point := at(low)) is not None]
        raise _impossible(min(starts, key=lambda point: point.key, default=None), budget)
    key = max(point.key for _, point in tops)
    below = (key[0], key[1] - 1)
    best = at(min(up_to(low, point.k, below) + 1 for low, point in tops if point.key == key))
    assert best is not None
    after = [up_to(low, high, key) + 1 for low, high in pieces]
    larger = [point for k, (_, high) in zip(after, pieces, strict=True) if k <= high and (point := at(k)) is not None]
    return best, min(larger, key=lambda point: (point.key, point.k), default=None)


def _last_true(test: Callable[[int], bool], low: int, high: int) -> int:
    """The last k in [low, high] that passes, where all that pass stand first; low is taken to pass."""
    if high <= low or test(high):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if test(middle) else (low, middle)
    return low


def _pieces(architecture: Architecture, coefficients: Coefficients, rounding: Rounding) -> list[tuple[int, int]]:
    """The grid cut into ranges [low, high] in which more phi can never lower a count.

    Layers, channels and pixels never shrink, so a count can only fall where a convolution comes or goes as rounding
    makes two widths equal or unequal: a projected shortcut (in and out), or an expansion (in and middle). The grid is
    cut wherever that happens.
    """
    cuts = {_FIRST}
    inputs = architecture.stem.channels
    for number, stage in enumerate(architecture.stages):
        fixed = rounding.fixed_ends and number == 0
        if coefficients.beta > 1 and _can_flip(inputs, stage, fixed_input=fixed):
            cuts |= _flips(inputs, stage, coefficients.beta, rounding, fixed_input=fixed)
        inputs = stage.channels
    low = sorted(cuts)
    return list(zip(low, [k - 1 for k in low[1:]] + [_LAST], strict=True))


def _can_flip(inputs: int, stage: Stage, *, fixed_input: bool) -> bool:
    """Whether a convolution of the stage may come or go with its width."""
    if stage.operator in SHORTCUT_ALWAYS:
        return stage.stride == 1 and stage.skip and (inputs != stage.channels or fixed_input)
    if stage.operator not in ("mbconv", "fused_mbconv"):
        return False
    return stage.expand_of == "output" or (stage.expand_ratio != 1 and stage.expand_ratio < 2)


def _flips(inputs: int, stage: Stage, beta: float, rounding: Rounding, *, fixed_input: bool) -> set[int]:
    """Every k at which a convolution of the stage is there and at k - 1 is not, or the other way round."""

    def present(k: int) -> tuple[bool, bool]:
        width = beta ** (k / STEPS_PER_PHI)
        before = inputs if fixed_input else round_channels(inputs, width, rounding)
        after = round_channels(stage.channels, width, rounding)
        if stage.operator in SHORTCUT_ALWAYS:
            return before == after, True
        return inner_channels(stage, before, after) == before, inner_channels(stage, after, after) == after

    exponent = math.log(_apart_from(inputs, stage, rounding, fixed_input=fixed_input)) / math.log(beta)
    last = min(max(math.ceil(min(exponent, PHI_MAX) * STEPS_PER_PHI), _FIRST), _LAST)
    states = [present(k) for k in range(_FIRST, last + 1)]
    return {k for k, (one, other) in enumerate(pairwise(states), start=_FIRST + 1) if one != other}


def _apart_from(inputs: int, stage: Stage, rounding: Rounding, *, fixed_input: bool) -> float:
    """A width multiplier from which on the widths compared stay unequal; infinite if there is none.

    A rounded width is at most one divisor away from the exact one, so two are unequal once the exact ones are further
    apart than their roundings together.
    """
    outputs, ratio, off = stage.channels, stage.expand_ratio, rounding.divisor
    if stage.operator in SHORTCUT_ALWAYS:
        if fixed_input:
            return (inputs + off) / outputs
        return 2 * off / abs(inputs - outputs)
    later = 0.0 if ratio == 1 else (1 / abs(ratio - 1) + off) / (outputs if fixed_input else min(inputs, outputs))
    if stage.expand_of == "input":
        return math.inf if fixed_input else later
    gap = outputs * ratio if fixed_input else abs(inputs - outputs * ratio)
    slack = off * ratio + 1 + (inputs if fixed_input else off)
    return max(later, slack / gap) if gap else math.inf


def _impossible(smallest: _Point | None, budget: Budget) -> ImpossibleBudget:
    if smallest is None:
        return ImpossibleBudget("budget: no network of this family can be described")
    parts = [
        f"{name} at most {budget.limits[name]:,.0f} (the smallest network has {LIMITS[name](smallest.cost):,})"
        for name in budget.broken_by(smallest.cost)
    ]
    return ImpossibleBudget(
        f"budget cannot be met at phi {smallest.k / STEPS_PER_PHI:g}, the least allowed: {'; '.join(parts)}. "
        "A smaller baseline, or a smaller resolution range, can"
    )


def _fill_width(
    found: Fit, architecture: Architecture, rounding: Rounding, *, num_classes: int, in_channels: int
) -> Fit:
    """The fit with its width raised in steps of 0.1 % as far as the limits let it, found by bisection."""

    def wider(step: int) -> tuple[Multipliers, Architecture, Cost]:
        multipliers = replace(found.multipliers, width=found.multipliers.width * (1 + step / 1000))
        body = scale(architecture, replace(multipliers, resolution=1.0), rounding)
        scaled = replace(body, resolution=found.architecture.resolution)
        return multipliers, scaled, cost(scaled, num_classes=num_classes, in_channels=in_channels)

    def within(step: int) -> bool:
        try:
            return not found.budget.broken_by(wider(step)[2])
        except InvalidInput:
            return False

    step = _last_true(within, 0, 4000)
    multipliers, scaled, spent = wider(step)
    if (spent.multiply_adds, spent.parameters) <= (found.cost.multiply_adds, found.cost.parameters):
        return found
    return replace(found, multipliers=multipliers, architecture=scaled, cost=spent, width_adjustment=1 + step / 1000)


_NAMES = {
    "multiply_adds": "multiply_adds",
    "macs": "multiply_adds",
    "parameters": "parameters",
    "params": "parameters",
    "activations": "activations",
    "acts": "activations",
    "size": "file_bytes",
    "file_bytes": "file_bytes",
}
_COUNTS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}
_BYTES = {
    "": 1.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30,
}  # fmt: skip
_ALLOWED = "multiply-adds, parameters, activations, size, resolution"
_NOT_A_LIMIT = {
    "flops": "flops means two things; say multiply-adds (what the paper calls FLOPS; half of what adds and multiplies)",
    "latency": "latency cannot be limited yet",
    "memory": "peak memory cannot be limited yet",
}


def parse_budget(text: str) -> Budget:
    """The budget a user writes, such as `multiply-adds=1.5e9,params=8M,size=20MB,resolution=128..256`.

    Raises ImpossibleBudget naming the part that cannot be read and what is allowed.
    """
    values: dict[str, float | int] = {}
    for part in text.split(","):
        name, sign, value = part.strip().partition("=")
        field = name.strip().lower().replace("-", "_")
        if not sign:
            raise ImpossibleBudget(f"budget: {part.strip()!r} must have the form name=value; names are {_ALLOWED}")
        if field in _NOT_A_LIMIT:
            raise ImpossibleBudget(f"budget: {_NOT_A_LIMIT[field]}")
        if field == "resolution":
            new = _parse_range(value.strip())
        elif field in _NAMES:
            new = {
                _NAMES[field]: _parse_number(
                    name.strip(), value.strip(), _BYTES if _NAMES[field] == "file_bytes" else _COUNTS
                )
            }
        else:
            raise ImpossibleBudget(f"budget: {name.strip()!r} is not a limit; allowed are {_ALLOWED}")
        for key in new:
            if key in values:
                raise ImpossibleBudget(f"budget: {name.strip()} is given twice")
        values.update(new)
    return Budget(**values)  # type: ignore[arg-type]  # names come from _NAMES and _parse_range, whole where they must be


def _parse_number(name: str, text: str, units: dict[str, float]) -> float:
    match = re.fullmatch(r"([0-9]+(?:[._][0-9]+)*(?:e[+-]?[0-9]{1,2})?)\s*([a-z]*)", text.lower())
    if not match or match[2] not in units:
        allowed = ", ".join(unit for unit in units if unit)
        raise ImpossibleBudget(
            f"budget: {name} must be a positive number with a unit of {allowed} or none, got {text!r}"
        )
    try:
        return float(match[1]) * units[match[2]]
    except ValueError:
        raise ImpossibleBudget(f"budget: {name} must be a number, got {text!r}") from None


def _parse_range(text: str) -> dict[str, float | int]:
    match = re.fullmatch(r"([0-9]{0,6})(\.\.)?([0-9]{0,6})", text)
    if not match or not (match[1] or match[3]) or (not match[2] and match[3]):
        raise ImpossibleBudget(f"budget: resolution must be pixels such as 128..256, ..256, 128.. or 224, got {text!r}")
    low, high = match[1], match[3] if match[2] else match[1]
    return {name: int(value) for name, value in (("min_resolution", low), ("max_resolution", high)) if value}
