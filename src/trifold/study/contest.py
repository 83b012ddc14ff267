"""After a search: what it found, trained in full beside the baseline of the same cost and random search's best.

And what its estimates are worth: the rank correlation of short trainings, or of a supernet, with full ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trifold.architecture import Architecture, from_dict, to_dict
from trifold.claimed import Common
from trifold.cost import cost
from trifold.errors import InvalidInput
from trifold.scaling import PAPER, Multipliers, scale
from trifold.search.question import Search
from trifold.search.reward import reward
from trifold.search.run import Found, ranked
from trifold.search.survey import COUNTED
from trifold.study.choose import half_of_difference, pooled_noise, verdict
from trifold.study.directions import EQUAL, equal_cost
from trifold.study.measured import Measured, measure
from trifold.study.run import TrainedToTheEnd, rounds
from trifold.train.record import Plan
from trifold.trials import Job, Trained

FOUND, RANDOM, BASELINE, SAMPLE = "found", "random", "baseline", "sample"
"""Why a network is in: the search's best, random search's, the yardstick, or to see what the estimates are worth."""

LEAST_SAMPLE = 5
"""Networks below which no rank correlation is given."""

RESAMPLED = 2_000
"""Times the sample is drawn anew for the interval of a rank correlation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """A network that is trained in full. roles: why. seeds: of its trainings.

    estimate: the accuracy that the search took it to have, in percent, or None if it was not a candidate. costs: by
    measure, all that the search knew; of one that was no candidate, those that are counted.
    """

    architecture: Architecture
    roles: tuple[str, ...]
    seeds: int
    estimate: float | None
    costs: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How much is trained in full.

    finalists: of each search. seeds: of each finalist and baseline. sample: networks of one seed for the ranks.
    """

    finalists: int = 3
    seeds: int = 3
    sample: int = 10

    def __post_init__(self) -> None:
        for name, low, high in (("finalists", 1, 50), ("seeds", 1, 100), ("sample", 0, 1000)):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise InvalidInput(f"{name} must be a whole number from {low} to {high}, got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest(TrainedToTheEnd):
    """The trainings in full, as a study. common: its recipe is the full one, its split the search's."""

    entrants: tuple[Entrant, ...]
    common: Common

    @property
    def question(self) -> dict[str, Any]:
        """Plain values that tell two contests apart."""
        entrants = [
            {
                "architecture": to_dict(one.architecture),
                "roles": list(one.roles),
                "seeds": one.seeds,
                "estimate": one.estimate,
                "costs": dict(one.costs),
            }
            for one in self.entrants
        ]
        return {"kind": "contest", "entrants": entrants, "common": asdict(self.common)}

    @property
    def networks(self) -> tuple[Architecture, ...]:
        """The entrants' networks."""
        return tuple(one.architecture for one in self.entrants)

    @property
    def names(self) -> tuple[str, ...]:
        """Each entrant by its roles."""
        counts: dict[str, int] = {}
        names = []
        for one in self.entrants:
            role = one.roles[0]
            counts[role] = counts.get(role, 0) + 1
            names.append(f"{role} {counts[role]}")
        return tuple(names)

    def plan(self, job: Job) -> Plan:
        """Of a training."""
        return self.common.plan(self.networks[job[0]], job[1])

    def wanted(self, found: Found) -> list[Job]:
        """The trainings to come: one seed of all networks after another."""
        return rounds([one.seeds for one in self.entrants], found)


def contest_from(question: Mapping[str, Any]) -> Contest:
    """The contest whose `question` this was."""
    entrants = tuple(
        Entrant(
            architecture=from_dict(one["architecture"]),
            roles=tuple(one["roles"]),
            seeds=one["seeds"],
            estimate=one["estimate"],
            costs=one["costs"],
        )
        for one in question["entrants"]
    )
    return Contest(entrants=entrants, common=Common.from_dict(question["common"]))


def make_contest(search: Search, found: Found, beside: Found, common: Common, rules: Rules) -> Contest:
    """Who is trained in full: the best of the search and of random search beside it, the baseline, and a sample.

    beside: random search's candidates, or none. The baseline is brought to the multiply-adds of each of the search's
    finalists, as the full trainings say which of them is found. The sample is spread evenly over the ranks of all
    candidates.

    Raises InvalidInput if no candidate was evaluated.
    """
    if not ranked(found):
        raise InvalidInput("search: no candidate was evaluated without failing, so there is nothing to train in full")
    everything = [*((found, job) for job in ranked(found)), *((beside, job) for job in ranked(beside))]
    roles: dict[Architecture, list[str]] = {}
    known: dict[Architecture, Mapping[str, Any]] = {}

    def enter(network: Architecture, role: str, facts: Mapping[str, Any] | None = None) -> None:
        own = roles.setdefault(network, [])
        if role not in own:
            own.append(role)
        if facts is not None:
            known.setdefault(network, facts)

    for source, role in ((found, FOUND), (beside, RANDOM)):
        for job in ranked(source)[: rules.finalists]:
            enter(_network(search, source[job]), role, source[job].facts)
    costs: list[int] = []
    for job in ranked(found)[: rules.finalists]:
        own = _multiply_adds(search, _network(search, found[job]))
        if all(abs(own / other - 1) > EQUAL for other in costs):
            costs.append(own)
            enter(at_cost(search, own), BASELINE)
    by_estimate = sorted(everything, key=lambda one: -one[0][one[1]].facts["accuracy"])
    for place in _spread(len(by_estimate), rules.sample):
        source, job = by_estimate[place]
        enter(_network(search, source[job]), SAMPLE, source[job].facts)
    name = search.space.baseline.name[:80]
    entrants = tuple(
        Entrant(
            architecture=replace(network, name=f"{name}-full-{number}"),
            roles=tuple(own),
            seeds=1 if own == [SAMPLE] else rules.seeds,
            estimate=known[network]["accuracy"] if network in known else None,
            costs=known[network]["costs"] if network in known else _counted(search, network),
        )
        for number, (network, own) in enumerate(roles.items())
    )
    return Contest(entrants=entrants, common=common)


def _network(search: Search, one: Trained) -> Architecture:
    return search.space.architecture(tuple(one.facts["tokens"]))


def _counted(search: Search, network: Architecture) -> dict[str, float]:
    spent = cost(network, num_classes=search.common.classes, in_channels=search.common.channels)
    return {name: float(getattr(spent, name)) for name in COUNTED}


def _multiply_adds(search: Search, network: Architecture) -> int:
    return cost(network, num_classes=search.common.classes, in_channels=search.common.channels).multiply_adds


def _spread(count: int, most: int) -> list[int]:
    """Up to so many of the places 0 to count - 1, evenly spread, both ends among them."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(most, count))})


def at_cost(search: Search, target: int) -> Architecture:
    """The search's baseline at these multiply-adds: itself where it has them, compound scaling where it has fewer.

    Where it has more, or no compound network is within EQUAL, its width is changed, to the nearest there is.
    """
    baseline, rounding = search.space.baseline, search.space.rounding
    off = target / _multiply_adds(search, baseline) - 1
    if abs(off) <= EQUAL:
        return baseline
    if off > 0:
        plan = equal_cost(
            baseline,
            [PAPER],
            target,
            rounding=rounding,
            num_classes=search.common.classes,
            in_channels=search.common.channels,
            partial=True,
        )
        if plan.candidates:
            return plan.candidates[0].architecture
    return _nearest_width(search, target)


def _nearest_width(search: Search, target: int) -> Architecture:
    """The baseline with its width multiplied by a thousandth or more, whichever comes nearest to the multiply-adds."""

    def at(step: int) -> Architecture:
        return scale(search.space.baseline, Multipliers(width=step / 1000), search.space.rounding)

    low, high = 10, 20_000  # cost only grows with width
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _multiply_adds(search, at(middle)) <= target else (low, middle)
    return min((at(low), at(high)), key=lambda one: abs(_multiply_adds(search, one) - target))


class Rank(NamedTuple):
    """Kendall's tau of estimates with full trainings over some networks; its 95 % interval is a bootstrap's."""

    tau: float
    low: float
    high: float
    networks: int

    @property
    def verdict(self) -> str:
        """Whether the estimate can be said to rank."""
        return "ranks" if self.low > 0 else "is not shown to rank"


class Difference(NamedTuple):
    """How much better on test, in points, the found network is than the other's; half: of its 95 % interval.

    other: its role. same: whether both are one network.
    """

    other: str
    points: float
    half: float
    same: bool

    @property
    def verdict(self) -> str:
        """In a word or two."""
        return "the same network" if self.same else verdict(self.points, self.half)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the full trainings say. measured, worth: of each entrant by number; worth: its reward by minival.

    chosen: each role's best entrant by that, where it has one; of the baselines, the one at the found network's cost.
    differences: of the found network to random search's and the baseline; their intervals hold together (Bonferroni).
    """

    measured: Mapping[int, Measured]
    worth: Mapping[int, float]
    chosen: Mapping[str, int]
    differences: tuple[Difference, ...]
    rank: Rank | None
    to_come: int


def outcome(search: Search, contest: Contest, full: Found) -> Outcome:
    """What is known so far of the entrants; full: their trainings."""
    measured = measure(full)
    worth = {number: _worth(search, contest.entrants[number], one) for number, one in measured.items()}
    chosen = {}
    for role in (FOUND, RANDOM):
        ones_of = [n for n, one in enumerate(contest.entrants) if role in one.roles and n in measured]
        if ones_of:
            chosen[role] = max(ones_of, key=worth.__getitem__)
    if FOUND in chosen and (beside := _baseline_of(search, contest, chosen[FOUND])) in measured:
        chosen[BASELINE] = beside
    return Outcome(
        measured=measured,
        worth=worth,
        chosen=chosen,
        differences=_differences(measured, chosen, full),
        rank=_rank(contest, full),
        to_come=contest.to_come(full),
    )


def _baseline_of(search: Search, contest: Contest, found: int) -> int:
    """Which of the baselines costs what an entrant costs, or comes nearest."""
    own = _multiply_adds(search, contest.entrants[found].architecture)
    return min(
        (number for number, one in enumerate(contest.entrants) if BASELINE in one.roles),
        key=lambda number: abs(math.log(_multiply_adds(search, contest.entrants[number].architecture) / own)),
    )


def _worth(search: Search, entrant: Entrant, one: Measured) -> float:
    """The reward of an entrant by its mean on minival; nan where a cost that is weighed is not known of it."""
    if any(target.measure not in entrant.costs for target in search.targets):
        return math.nan
    return reward(one.minival[0], entrant.costs, search.targets)


def _differences(measured: Mapping[int, Measured], chosen: Mapping[str, int], full: Found) -> tuple[Difference, ...]:
    if FOUND not in chosen:
        return ()
    noise, freedom = pooled_noise(
        [[one.facts["test"] for (other, _), one in full.items() if other == number] for number in measured]
    )
    own = measured[chosen[FOUND]]
    others = {role: measured[n] for role, n in chosen.items() if role != FOUND}
    return tuple(
        Difference(
            role,
            own.test[0] - other.test[0],
            0.0
            if chosen[role] == chosen[FOUND]
            else half_of_difference(noise, freedom, len(others), own.seeds, other.seeds),
            chosen[role] == chosen[FOUND],
        )
        for role, other in others.items()
    )


def _rank(contest: Contest, full: Found) -> Rank | None:
    """Of the sample's estimates with their first full trainings; finalists that it has not were picked by theirs."""
    pairs = [
        (one.estimate, full[number, 0].score)
        for number, one in enumerate(contest.entrants)
        if SAMPLE in one.roles and one.estimate is not None and (number, 0) in full
    ]
    return rank(*zip(*pairs, strict=True)) if len(pairs) >= LEAST_SAMPLE else None


def rank(estimates: Sequence[float], accuracies: Sequence[float]) -> Rank:
    """Kendall's tau-b of two lists of as many numbers, at least two, with a bootstrap interval.

    A list, or a sample of it, whose numbers are all equal ranks nothing: its tau is 0.
    """
    count = len(estimates)
    first, second = (np.asarray(values, float) for values in (estimates, accuracies))
    above, over = (np.sign(values[:, None] - values[None]) for values in (first, second))
    drawn = np.random.default_rng(0).integers(0, count, size=(RESAMPLED, count))
    taus = [_tau(above[np.ix_(some, some)], over[np.ix_(some, some)]) for some in (np.arange(count), *drawn)]
    low, high = np.quantile(taus[1:], (0.025, 0.975))
    return Rank(taus[0], float(low), float(high), count)


def _tau(above: NDArray[np.float64], over: NDArray[np.float64]) -> float:
    """Kendall's tau-b from the signs of all pairs' differences (scipy's takes a second for a bootstrap)."""
    untied = math.sqrt(float(np.abs(above).sum() * np.abs(over).sum()))
    return float((above * over).sum()) / untied if untied else 0.0
