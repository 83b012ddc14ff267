"""Which networks are compared: depth, width and resolution alone and together, at equal real cost (Figures 3, 4, 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trifold.architecture import Architecture
from trifold.cost import cost
from trifold.errors import InvalidInput
from trifold.scaling import RULES, Coefficients, Multipliers, Rounding, scale
from trifold.study.directions import (
    Candidate,
    Unreachable,
    candidate_from_dict,
    candidate_to_dict,
    equal_cost,
)

SINGLE = ("depth", "width", "resolution")
KINDS = (*SINGLE, "compound", "fast")
"""The rules that are compared unless others are named: one dimension, the paper's three, dWr (2103.06877)."""

FURTHEST = 1_000_000
"""How many times the baseline's multiply-adds a network may have."""

FOUND = "found"
"""What coefficients of the user's own are called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A network of a comparison.

    kind: what was scaled. factor: its multiply-adds over the baseline's, as asked; of a network of a width sweep, as
    they are. sweep: the width sweep's depth and resolution multipliers (Figure 4), or None.
    """

    kind: str
    factor: float
    candidate: Candidate
    sweep: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The networks, and what has none: kind, factor and how far off the nearest is, as a share."""

    baseline: Candidate
    points: tuple[Point, ...]
    unreachable: tuple[tuple[str, float, float], ...]


def compare(
    baseline: Architecture,
    factors: Sequence[float],
    kinds: Mapping[str, Coefficients],
    *,
    rounding: Rounding | None = None,
    num_classes: int = 1000,
    in_channels: int = 3,
) -> Comparison:
    """Every kind at every factor of the baseline's multiply-adds, within `directions.EQUAL` of it.

    Raises InvalidInput for no kinds, no factors, equal ones, or those that `equal_cost` refuses.
    """
    if not kinds:
        raise InvalidInput(f"kinds must name at least one of {', '.join(RULES)}")
    if not factors or len(set(factors)) < len(factors) or not all(1 < one <= FURTHEST for one in factors):
        listed = ", ".join(map(str, factors)) or "none"
        raise InvalidInput(f"factors must be different numbers over 1, at most {FURTHEST:,}, got {listed}")
    for kind, coefficients in kinds.items():
        if coefficients.growth <= 1:
            raise InvalidInput(f"{kind}: alpha, beta and gamma must not all be 1, as nothing would grow")
    own = cost(baseline, num_classes=num_classes, in_channels=in_channels)
    points, unreachable = [], []
    for factor in factors:
        for kind, coefficients in kinds.items():
            found = _equal(baseline, coefficients, factor * own.multiply_adds, rounding, num_classes, in_channels)
            if isinstance(found, Candidate):
                points.append(Point(kind=kind, factor=factor, candidate=found))
            else:
                unreachable.append((kind, factor, found.nearest))
    return Comparison(
        baseline=Candidate(
            directions=(), phi=0.0, multipliers=Multipliers(), width_adjustment=1.0, architecture=baseline, cost=own,
            off=0.0,
        ),
        points=tuple(points),
        unreachable=tuple(unreachable),
    )  # fmt: skip


def _equal(
    baseline: Architecture, coefficients: Coefficients, target: float, rounding: Rounding | None, classes: int,
    channels: int,
) -> Candidate | Unreachable:  # fmt: skip
    plan = equal_cost(
        baseline, [coefficients], target, rounding=rounding, num_classes=classes, in_channels=channels, partial=True
    )
    return plan.candidates[0] if plan.candidates else plan.unreachable[0]


def width_sweep(
    baseline: Architecture,
    widths: Sequence[float],
    *,
    depth: float,
    resolution: float,
    rounding: Rounding | None = None,
    num_classes: int = 1000,
    in_channels: int = 3,
) -> tuple[Point, ...]:
    """Every width under four settings of depth and resolution: neither, either, both (paper §3.2, Figure 4).

    The paper has 2 and 1.3. Raises InvalidInput unless depth and resolution are over 1, and widths at least 1.
    """
    if depth <= 1 or resolution <= 1:
        raise InvalidInput(f"a width sweep needs a depth and a resolution over 1, got {depth:g} and {resolution:g}")
    if not widths or min(widths) < 1 or len(set(widths)) < len(widths):
        raise InvalidInput(f"widths must be different numbers from 1 on, got {', '.join(map(str, widths)) or 'none'}")
    own = cost(baseline, num_classes=num_classes, in_channels=in_channels).multiply_adds
    points = []
    for d, r in ((1.0, 1.0), (1.0, resolution), (depth, 1.0), (depth, resolution)):
        for width in widths:
            multipliers = Multipliers(depth=d, width=width, resolution=r)
            scaled = scale(baseline, multipliers, rounding)
            spent = cost(scaled, num_classes=num_classes, in_channels=in_channels)
            candidate = Candidate(
                directions=(), phi=1.0, multipliers=multipliers, width_adjustment=1.0, architecture=scaled, cost=spent,
                off=0.0,
            )  # fmt: skip
            kind = f"depth x{d:g}, resolution x{r:g}"
            points.append(Point(kind=kind, factor=spent.multiply_adds / own, candidate=candidate, sweep=(d, r)))
    return tuple(points)


def different(comparison: Comparison) -> tuple[Architecture, ...]:
    """The different networks by what they are called first, the baseline first of all."""
    candidates = (comparison.baseline, *(point.candidate for point in comparison.points))
    name = comparison.baseline.architecture.name
    return tuple(dict.fromkeys(replace(one.architecture, name=name) for one in candidates))


def comparison_to_dict(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain values."""
    return {
        "baseline": candidate_to_dict(comparison.baseline),
        "points": [
            {
                "kind": one.kind,
                "factor": one.factor,
                "sweep": None if one.sweep is None else list(one.sweep),
                **candidate_to_dict(one.candidate),
            }
            for one in comparison.points
        ],
        "unreachable": [list(one) for one in comparison.unreachable],
    }


def comparison_from_dict(data: Mapping[str, Any], *, num_classes: int, in_channels: int) -> Comparison:
    """The comparison that `comparison_to_dict` was given; costs are counted anew."""

    def candidate(values: Mapping[str, Any]) -> Candidate:
        return candidate_from_dict(values, num_classes=num_classes, in_channels=in_channels)

    return Comparison(
        baseline=candidate(data["baseline"]),
        points=tuple(
            Point(
                kind=one["kind"],
                factor=float(one["factor"]),
                candidate=candidate(one),
                sweep=None if one["sweep"] is None else (float(one["sweep"][0]), float(one["sweep"][1])),
            )
            for one in data["points"]
        ),
        unreachable=tuple((str(kind), float(factor), float(off)) for kind, factor, off in data["unreachable"]),
    )
