"""The candidates of the paper's small grid search (§3.3, step 1): directions of scaling, brought to one real cost.

Rounding is the trap. Layers, channels and pixels are whole numbers, so that on a small network many directions of a
grid are one and the same network, and networks of one phi differ in cost by a third. Every direction is therefore
followed to the same real cost, equal networks are merged, and what does not come near that cost is said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from trifold.architecture import Architecture, from_dict, to_dict
from trifold.budget import STEPS_PER_PHI, Budget, fit
from trifold.cost import Cost, cost
from trifold.errors import InvalidInput
from trifold.scaling import PHI_MAX, Coefficients, Multipliers, Rounding, scale

EQUAL = 0.03
"""Costs that differ by at most this share of the target count as equal."""

WIDEST_ADJUSTMENT = 0.15
"""Width is multiplied by at most this much more or less than 1 to meet a cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Coefficients from 1 on in equal steps, whose alpha * beta^2 * gamma^2 is near `growth` (paper §3.3).

    step: in [0.005, 1]. growth: in [1.1, 16]. tolerance: how far from it, in [0, growth]. The paper has a growth of 2
    and names neither step nor tolerance.
    """

    step: float = 0.1
    growth: float = 2.0
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        for name, low, high in (("step", 0.005, 1), ("growth", 1.1, 16), ("tolerance", 0, self.growth)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise InvalidInput(f"grid: {name} must be a number from {low:g} to {high:g}, got {value!r}")

    def directions(self) -> tuple[Coefficients, ...]:
        """Every direction of the grid, by rising alpha, then beta. Raises InvalidInput if there is none."""
        most = self.growth + self.tolerance
        values = [round(1 + i * self.step, 6) for i in range(int((min(most, 4) - 1) / self.step + 1e-9) + 1)]
        found = [
            Coefficients(alpha=alpha, beta=beta, gamma=gamma)
            for alpha in values
            for beta in values
            for gamma in values
            if abs(alpha * beta**2 * gamma**2 - self.growth) <= self.tolerance + 1e-9
        ]
        if not found:
            raise InvalidInput(
                f"grid: no alpha, beta, gamma in steps of {self.step:g} has alpha * beta^2 * gamma^2 within "
                f"{self.tolerance:g} of {self.growth:g}; take a smaller step or a larger tolerance"
            )
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A network of the target's cost.

    directions: all that lead to it; the first is the one that `phi` and `multipliers` belong to.
    width_adjustment: what its width was multiplied by to meet the cost; 1 if that was not needed.
    off: its multiply-adds over the target, less 1.
    """

    directions: tuple[Coefficients, ...]
    phi: float
    multipliers: Multipliers
    width_adjustment: float
    architecture: Architecture
    cost: Cost
    off: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreachable:
    """A direction on which no network costs what was asked; nearest: the least distance found, as a share of it."""

    direction: Coefficients
    nearest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The distinct networks of equal cost that a set of directions holds.

    target: multiply-adds of one image. candidates: by rising alpha, then beta, of their first directions.
    """

    target: int
    candidates: tuple[Candidate, ...]
    unreachable: tuple[Unreachable, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setting:
    """What a direction is followed on."""

    baseline: Architecture
    target: float
    rounding: Rounding | None
    num_classes: int
    in_channels: int

    def at(self, multipliers: Multipliers) -> tuple[Architecture, Cost, float]:
        """The scaled network, its cost, and its distance from the target as a share of it."""
        scaled = scale(self.baseline, multipliers, self.rounding)
        spent = cost(scaled, num_classes=self.num_classes, in_channels=self.in_channels)
        return scaled, spent, spent.multiply_adds / self.target - 1


def named(direction: Coefficients) -> str:
    """The coefficients on one line."""
    return f"({direction.alpha:g}, {direction.beta:g}, {direction.gamma:g})"


def going_on(count: int) -> int:
    """How many of so many candidates are trained with the other seeds: a quarter, at least two."""
    return max(2, count // 4)


def most_trainings(count: int, seeds: int) -> int:
    """How many trainings the two rounds of so many candidates have, where all go to their end."""
    return count + going_on(count) * (seeds - 1)


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """The plan as plain values."""
    return {
        "target": plan.target,
        "candidates": [candidate_to_dict(one) for one in plan.candidates],
        "unreachable": [{**asdict(one.direction), "nearest": one.nearest} for one in plan.unreachable],
    }


def candidate_to_dict(candidate: Candidate) -> dict[str, Any]:
    """The candidate as plain values, its cost among them."""
    return {
        "directions": [asdict(direction) for direction in candidate.directions],
        "phi": candidate.phi,
        "multipliers": asdict(candidate.multipliers),
        "width_adjustment": candidate.width_adjustment,
        "multiply_adds": candidate.cost.multiply_adds,
        "parameters": candidate.cost.parameters,
        "off": candidate.off,
        "architecture": to_dict(candidate.architecture),
    }


def plan_from_dict(data: Mapping[str, Any], *, num_classes: int, in_channels: int) -> Plan:
    """The plan that `plan_to_dict` was given; costs are counted anew."""
    unreachable = tuple(
        Unreachable(direction=_direction(one), nearest=float(one["nearest"])) for one in data["unreachable"]
    )
    candidates = tuple(
        candidate_from_dict(one, num_classes=num_classes, in_channels=in_channels) for one in data["candidates"]
    )
    return Plan(target=int(data["target"]), candidates=candidates, unreachable=unreachable)


def candidate_from_dict(data: Mapping[str, Any], *, num_classes: int, in_channels: int) -> Candidate:
    """The candidate that `candidate_to_dict` was given; its cost is counted anew."""
    architecture = from_dict(data["architecture"])
    return Candidate(
        directions=tuple(map(_direction, data["directions"])),
        phi=float(data["phi"]),
        multipliers=Multipliers(**data["multipliers"]),
        width_adjustment=float(data["width_adjustment"]),
        architecture=architecture,
        cost=cost(architecture, num_classes=num_classes, in_channels=in_channels),
        off=float(data["off"]),
    )


def _direction(data: Mapping[str, Any]) -> Coefficients:
    return Coefficients(alpha=data["alpha"], beta=data["beta"], gamma=data["gamma"])


def shares(baseline: Architecture, scaled: Architecture) -> tuple[float, float, float]:
    """What part of the growth of multiply-adds depth, width and resolution really have, after rounding; sum 1.

    Depth counts layers, width the stages' channels by their geometric mean, both as multiply-adds grow with them:
    log d : 2 log w : 2 log r (paper §3.3).

    Raises InvalidInput if the two have different stages, or the scaled one has grown in nothing.
    """
    if len(baseline.stages) != len(scaled.stages):
        raise InvalidInput(f"{scaled.name} has {len(scaled.stages)} stages, {baseline.name} {len(baseline.stages)}")
    pairs = list(zip(baseline.stages, scaled.stages, strict=True))
    depth = math.log(scaled.num_blocks / baseline.num_blocks)
    width = 2 * sum(math.log(after.channels / before.channels) for before, after in pairs) / len(pairs)
    resolution = 2 * math.log(scaled.resolution / baseline.resolution)
    whole = depth + width + resolution
    if whole <= 0:
        raise InvalidInput(f"{scaled.name} is no larger than {baseline.name}, so its growth has no shares")
    return depth / whole, width / whole, resolution / whole


def equal_cost(
    baseline: Architecture,
    directions: Iterable[Coefficients],
    target: float,
    *,
    rounding: Rounding | None = None,
    num_classes: int = 1000,
    in_channels: int = 3,
    partial: bool = False,
) -> Plan:
    """Every direction followed to the network nearest to `target` multiply-adds, equal networks merged.

    Where the nearest is off by more than EQUAL, the least adjustment of its width that helps is taken, up to
    WIDEST_ADJUSTMENT; directions on which that finds nothing are `unreachable`.

    partial: a plan without candidates is given back as well.

    Raises InvalidInput if the target is not over the baseline's cost by more than EQUAL, or no direction reaches it.
    """
    setting = _Setting(
        baseline=baseline, target=target, rounding=rounding, num_classes=num_classes, in_channels=in_channels
    )
    own = cost(baseline, num_classes=num_classes, in_channels=in_channels).multiply_adds
    if not own * (1 + EQUAL) < target <= 1e18:
        raise InvalidInput(
            f"target must be more than {EQUAL:.0%} over {baseline.name}'s own {own:,} multiply-adds, got {target:,.0f}"
        )
    found: dict[Architecture, Candidate] = {}
    unreachable = []
    for direction in directions:
        candidate = _follow(setting, direction)
        if isinstance(candidate, Unreachable):
            unreachable.append(candidate)
        elif (first := found.get(candidate.architecture)) is None:
            found[candidate.architecture] = candidate
        else:
            found[candidate.architecture] = replace(first, directions=(*first.directions, direction))
    if not found and not partial:
        nearest = min(abs(one.nearest) for one in unreachable) if unreachable else float("inf")
        raise InvalidInput(
            f"{baseline.name}: no direction has a network within {EQUAL:.0%} of {target:,.0f} multiply-adds (the least "
            f"is {nearest:.1%} off): the baseline is too small for its rounding; take a larger target or divisor 1"
        )
    return Plan(target=round(target), candidates=tuple(found.values()), unreachable=tuple(unreachable))


def _follow(setting: _Setting, direction: Coefficients) -> Candidate | Unreachable:
    """The candidate of one direction."""
    below = fit(
        setting.baseline,
        Budget(multiply_adds=setting.target),
        direction,
        rounding=setting.rounding,
        num_classes=setting.num_classes,
        in_channels=setting.in_channels,
    )
    phis = (below.phi, *_next_phi(setting, direction, below.phi))
    plain = min((_adjusted(setting, direction, phi, 0) for phi in phis), key=lambda one: abs(one.off))
    if abs(plain.off) <= EQUAL:
        return plain
    tried = [_width_adjusted(setting, direction, phi) for phi in phis]
    equal = [one for one in tried if abs(one.off) <= EQUAL]
    if equal:
        return min(equal, key=lambda one: abs(one.width_adjustment - 1))
    return Unreachable(direction=direction, nearest=min((one.off for one in [plain, *tried]), key=abs))


def _width_adjusted(setting: _Setting, direction: Coefficients, phi: float) -> Candidate:
    """The network at a phi with the least adjustment of its width that ends its cost's being too low, or too high.

    It may then be too far on the other side. Cost only grows with width, so the adjustment is found by bisection.
    """
    sign = 1 if _adjusted(setting, direction, phi, 0).off < 0 else -1
    low, high = 0, round(WIDEST_ADJUSTMENT * 1000)
    while high - low > 1:
        middle = (low + high) // 2
        enough = sign * _adjusted(setting, direction, phi, sign * middle).off >= -EQUAL
        low, high = (low, middle) if enough else (middle, high)
    return _adjusted(setting, direction, phi, sign * high)


def _next_phi(setting: _Setting, direction: Coefficients, phi: float) -> list[float]:
    """The first phi of the grid after this one whose network costs more than the target, if there is one."""
    low, high = round(phi * STEPS_PER_PHI), round(PHI_MAX * STEPS_PER_PHI)

    def over(k: int) -> bool:
        try:
            return setting.at(direction.multipliers(k / STEPS_PER_PHI))[2] > 0
        except InvalidInput:  # larger than a description may be
            return True

    if not over(high):
        return []
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if over(middle) else (middle, high)
    try:
        setting.at(direction.multipliers(high / STEPS_PER_PHI))
    except InvalidInput:
        return []
    return [high / STEPS_PER_PHI]


def _adjusted(setting: _Setting, direction: Coefficients, phi: float, step: int) -> Candidate:
    """The network at a phi with its width multiplied by 1 + step / 1000."""
    multipliers = direction.multipliers(phi)
    factor = 1 + step / 1000
    scaled, spent, off = setting.at(replace(multipliers, width=multipliers.width * factor))
    return Candidate(
        directions=(direction,),
        phi=phi,
        multipliers=multipliers,
        width_adjustment=factor,
        architecture=scaled,
        cost=spent,
        off=off,
    )
