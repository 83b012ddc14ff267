"""What a candidate is worth: accuracy weighed against costs, one or several (MnasNet's search, 1807.11626 §3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trifold.errors import InvalidInput

WEIGHT = -0.07
"""Of a soft target: twice the cost is worth about 5 % of the accuracy (1807.11626 §3; B0's search, paper §4)."""


def _check_positive(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InvalidInput(f"{name} must be a number above 0, got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A cost that accuracy is weighed against: the reward is multiplied by (cost / value)^w.

    measure: the cost's name. below, above: w where the cost is at most the value, and where it is more; the soft form
    (the default) has the same for both, the hard form 0 and -1 (1807.11626 eq. 2 and 3).
    """

    measure: str
    value: float
    below: float = WEIGHT
    above: float = WEIGHT

    def __post_init__(self) -> None:
        _check_positive(f"target {self.measure}", self.value)
        for name in ("below", "above"):
            weight = getattr(self, name)
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not -10 <= weight <= 0:
                raise InvalidInput(
                    f"target {self.measure}: weight {name} must be a number from -10 to 0, got {weight!r}"
                )


def hard(measure: str, value: float) -> Target:
    """A target in the hard form: costs below it are not rewarded, those above cost as much as they are too large."""
    return Target(measure=measure, value=value, below=0, above=-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A cost that no candidate may exceed: what does is rejected on its description, before anything is trained."""

    measure: str
    most: float

    def __post_init__(self) -> None:
        _check_positive(f"limit {self.measure}", self.most)


def reward(accuracy: float, costs: Mapping[str, float], targets: Sequence[Target]) -> float:
    """accuracy · Π (cost_i / value_i)^w_i over the targets (1807.11626 eq. 2; EfficientNetV2's search has two costs).

    accuracy: in any unit, at least 0. costs: above 0, by measure. Raises InvalidInput if either is out of range.
    """
    if not 0 <= accuracy < math.inf:
        raise InvalidInput(f"accuracy must be a number of at least 0, got {accuracy!r}")
    worth = accuracy
    for target in targets:
        cost = costs[target.measure]
        _check_positive(f"cost {target.measure}", cost)
        worth *= (cost / target.value) ** (target.below if cost <= target.value else target.above)
    return worth


def broken(costs: Mapping[str, float], limits: Sequence[Limit]) -> tuple[str, ...]:
    """The measures whose limit a candidate exceeds."""
    return tuple(limit.measure for limit in limits if costs[limit.measure] > limit.most)
