"""What a space's candidates cost, looked at before anything is trained; needs no torch."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trifold.architecture import Architecture
from trifold.cost import Cost, cost
from trifold.errors import InvalidInput
from trifold.search.reward import Limit, Target, broken
from trifold.search.space import Measure, Space, Tokens, extreme

COUNTED = ("multiply_adds", "parameters", "activations")
"""Costs that are counted on the description; any other measure is the user's own function."""

LOOKED_AT = 2_000
"""Random candidates whose costs say what share of a space is within the limits."""


def measures_of(classes: int, channels: int, own: Mapping[str, Measure] | None = None) -> dict[str, Measure]:
    """Every cost of a candidate by name: the counted ones for data of these classes and channels, and the user's own.

    Raises InvalidInput if one of those has a counted one's name.
    """
    own = own or {}
    for name in own:
        if name in COUNTED:
            raise InvalidInput(f"measure {name} is counted on the description; give your own another name")

    last: list[tuple[Architecture, Cost]] = []

    def spent(one: Architecture) -> Cost:  # several measures ask for the same candidate's
        if not last or last[0][0] is not one:
            last[:] = [(one, cost(one, num_classes=classes, in_channels=channels))]
        return last[0][1]

    def counted(name: str) -> Measure:
        return lambda one: float(getattr(spent(one), name))

    return {name: counted(name) for name in COUNTED} | dict(own)


def within(space: Space, limits: Sequence[Limit], measures: Mapping[str, Measure]) -> Callable[[Tokens], bool]:
    """Whether a candidate meets every limit; nothing else about it is looked at."""
    _check_known([one.measure for one in limits], measures)

    def allowed(tokens: Tokens) -> bool:
        one = space.architecture(tokens)
        return not broken({limit.measure: measures[limit.measure](one) for limit in limits}, limits)

    return allowed


def _check_known(names: Sequence[str], measures: Mapping[str, Measure]) -> None:
    for name in names:
        if name not in measures:
            raise InvalidInput(f"measure must be {' or '.join(measures)}, got {name!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What random candidates of a space cost.

    spans: the least and the greatest by measure, exact for those that are counted. share: of the candidates that meet
    the limits, in [0, 1]. mean: multiply-adds of those that do.
    """

    spans: Mapping[str, tuple[float, float]]
    share: float
    mean: float


def survey(
    space: Space,
    targets: Sequence[Target],
    limits: Sequence[Limit],
    measures: Mapping[str, Measure],
    *,
    looked_at: int = LOOKED_AT,
) -> Survey:
    """Looks at random candidates, before anything is trained.

    Raises InvalidInput where no limit can be met, naming the nearest candidate; or a measure is unknown, or gives what
    is no cost.
    """
    named = [*(one.measure for one in targets), *(one.measure for one in limits)]
    _check_known(named, measures)
    asked = list(dict.fromkeys([*COUNTED[:2], *named]))
    draw, sizes = random.Random(0), space.sizes
    drawn = [tuple(map(draw.randrange, sizes)) for _ in range(looked_at)]
    # The cheapest by what is counted: where even these break a limit, nothing meets it.
    ends = [
        extreme(space, measures[name], largest=large) for name in asked if name in COUNTED for large in (False, True)
    ]
    known = {
        one: {name: _cost(name, measures[name](one)) for name in asked}
        for one in dict.fromkeys(map(space.architecture, [*ends, *drawn]))
    }
    costs = list(known.values())
    spans = {name: (min(one[name] for one in costs), max(one[name] for one in costs)) for name in asked}
    for limit in limits:
        least = spans[limit.measure][0]
        if least > limit.most:
            raise InvalidInput(
                f"limit {limit.measure} must be one that the space can meet, whose least is {least:,.6g}, got "
                f"{limit.most:,.6g}"
            )
    if not any(not broken(one, limits) for one in costs):
        near = min(costs, key=lambda one: max(one[limit.measure] / limit.most for limit in limits))
        shown = ", ".join(f"{near[limit.measure]:,.6g} {limit.measure}" for limit in limits)
        raise InvalidInput(f"limits: none of {len(costs):,} networks looked at meets all; the nearest has {shown}")
    meeting = [one for one in (known[space.architecture(tokens)] for tokens in drawn) if not broken(one, limits)]
    spent = [one["multiply_adds"] for one in meeting or costs if not broken(one, limits)]
    return Survey(spans=spans, share=len(meeting) / looked_at, mean=sum(spent) / len(spent))


def _cost(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InvalidInput(f"measure {name} must give a number above 0 for every candidate, got {value!r:.60}")
    return float(value)
