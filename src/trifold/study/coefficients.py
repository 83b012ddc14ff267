"""Step 1 of compound scaling on the user's own network and data: a small search for alpha, beta, gamma (paper §3.3)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import optuna

from trifold.architecture import Architecture, from_dict, to_dict
from trifold.claimed import Common
from trifold.errors import InvalidInput
from trifold.study.choose import Choice, Score, choose, mean_and_interval, next_seeds, scores_of, spread
from trifold.study.directions import Plan as Directions
from trifold.study.directions import going_on, named, plan_from_dict, plan_to_dict, shares
from trifold.study.pruning import Hopeless, replay
from trifold.train.record import Plan
from trifold.trials import Job, Trained


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Everything that a search's scores depend on.

    directions: the candidates, at equal cost. seeds: of the candidates that go on to the second round, in [1, 100]; the
    others have one. stops: whether weak first trainings are stopped early. finish: train those to their end after all,
    when nothing else is left, to see whether that changes the choice.
    """

    baseline: Architecture
    directions: Directions
    common: Common
    seeds: int
    stops: bool = True
    finish: bool = False

    def __post_init__(self) -> None:
        if type(self.seeds) is not int or not 1 <= self.seeds <= 100:
            raise InvalidInput(f"seeds must be a whole number from 1 to 100, got {self.seeds!r}")
        if len(self.directions.candidates) < 2:
            raise InvalidInput(
                f"{self.baseline.name}: all directions are one network at this cost, so there is nothing to choose: "
                "take a larger factor or a finer divisor"
            )

    @property
    def points(self) -> list[tuple[float, float, float]]:
        """Each candidate's shares of the growth, as they are after rounding."""
        return [shares(self.baseline, one.architecture) for one in self.directions.candidates]

    @property
    def question(self) -> dict[str, Any]:
        """Plain values that tell two searches apart."""
        return {
            "kind": "coefficients",
            "baseline": to_dict(self.baseline),
            "directions": plan_to_dict(self.directions),
            "common": asdict(self.common),
            "seeds": self.seeds,
            "stops": self.stops,
        }

    @property
    def networks(self) -> tuple[Architecture, ...]:
        """The candidates, each with its number in its name."""
        return tuple(
            replace(one.architecture, name=f"{self.baseline.name}-{number}")
            for number, one in enumerate(self.directions.candidates)
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Each candidate by its first direction."""
        return tuple(named(one.directions[0]) for one in self.directions.candidates)

    def plan(self, job: Job) -> Plan:
        """Of a training."""
        return self.common.plan(self.networks[job[0]], job[1])

    def to_come(self, found: Mapping[Job, Trained]) -> int:
        """How many trainings are still to come, as far as is known."""
        jobs = self.wanted(found)
        count = len(self.directions.candidates)
        first_round = any(seed == 0 and (candidate, 0) not in found for candidate, seed in jobs)
        return len(jobs) + (going_on(count) * (self.seeds - 1) if first_round else 0)

    @property
    def pruner(self) -> optuna.pruners.BasePruner | None:
        """What stops weak first trainings."""
        return Hopeless() if self.stops else None

    def wanted(self, found: Mapping[Job, Trained]) -> list[Job]:
        """The trainings to come; what was stopped early goes no further than, if asked for, to its end."""
        stopped = {candidate for (candidate, _), one in found.items() if one.stopped}
        jobs = next_seeds(self.points, scores_of(found), self.seeds, stopped)
        return jobs or ([job for job, one in found.items() if not one.whole] if self.finish else [])

    def may_stop(self, job: Job, found: Mapping[Job, Trained]) -> bool:
        """Whether it is a first training, not yet stopped once: to stop a later seed would bend the means."""
        return job[1] == 0 and job not in found


def search_from(question: Mapping[str, Any]) -> Search:
    """The search whose `question` this was."""
    common = Common.from_dict(question["common"])
    return Search(
        baseline=from_dict(question["baseline"]),
        directions=plan_from_dict(question["directions"], num_classes=common.classes, in_channels=common.channels),
        common=common,
        seeds=question["seeds"],
        stops=question["stops"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Early:
    """What stopping weak trainings early did, or would have done.

    stopped: the candidates, each with the epochs it had. applied: whether it was done, and not only worked out from
    trainings that went to their end. saved: share of the search's epochs, in [0, 1]. known: whether what it changed is
    known: all stopped ones are trained to their end. without: the answer that the search has, or would have had, with
    them stopped; None if that is not known.
    """

    stopped: Mapping[int, int]
    applied: bool
    saved: float
    known: bool
    without: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a search found so far.

    choice: None while fewer than two candidates have a score; candidates: whose its standings are. trained: how many
    trainings are finished or stopped; to_come: how many are not; full: how many the whole grid has, each candidate with
    every seed. test: each candidate's mean accuracy on test in percent, with half its 95 % interval. images: in
    minival. needed: how many it would take to tell the best from the next best by their fitted scores; None where these
    are equal or not between 0 and 100.
    """

    choice: Choice | None
    candidates: tuple[int, ...]
    early: Early
    images: int
    needed: int | None
    trained: int
    to_come: int
    full: int
    test: dict[int, tuple[float, float]]


def answer(search: Search, found: Mapping[Job, Trained]) -> Answer:
    """What the trainings so far say."""
    scores = scores_of(found)
    candidates = tuple(sorted({one.candidate for one in scores}))
    test = {number: mean_and_interval(_tests(found, number)) for number in candidates}
    choice = choose(search.points, scores) if len(candidates) > 1 else None
    return Answer(
        choice=choice,
        candidates=candidates,
        early=_early(search, found, scores),
        images=max((one.facts["images"]["minival"] for one in found.values() if one.whole), default=0),
        needed=None if choice is None else _needed(choice),
        trained=len(found),
        to_come=search.to_come(found),
        full=len(search.points) * search.seeds,
        test=test,
    )


def _tests(found: Mapping[Job, Trained], number: int) -> list[float]:
    return [one.facts["test"] for (candidate, _), one in found.items() if candidate == number and one.whole]


def _early(search: Search, found: Mapping[Job, Trained], scores: Sequence[Score]) -> Early:
    epochs, firsts = search.common.recipe.epochs, {job: one for job, one in found.items() if job[1] == 0}
    if search.stops:
        stopped = {candidate: one.stopped for (candidate, _), one in firsts.items() if one.stopped}
    else:
        order = [number for number in spread(search.points) if (number, 0) in firsts]
        stopped = replay([(number, firsts[number, 0].curve, firsts[number, 0].score) for number in order])
    known = all(found[number, 0].whole for number in stopped)
    saved = sum(epochs - after for after in stopped.values())
    whole = epochs * (len(found) + search.to_come(found))
    return Early(
        stopped=stopped,
        applied=search.stops,
        saved=saved / whole if whole else 0.0,
        known=known,
        without=_without(search, scores, stopped) if known else None,
    )


def _without(search: Search, scores: Sequence[Score], stopped: Collection[int]) -> int | None:
    """The answer with these stopped: of the trainings that would then have been asked for, if all are at hand."""
    at_hand, taken = {(one.candidate, one.seed): one for one in scores}, list[Score]()
    while jobs := next_seeds(search.points, taken, search.seeds, stopped):
        if not at_hand.keys() >= set(jobs):
            return None
        taken += [at_hand[job] for job in jobs]
    return choose(search.points, taken).best if len({one.candidate for one in taken}) > 1 else None


def _needed(choice: Choice) -> int | None:
    second, first = sorted(one.fitted for one in choice.standings)[-2:]
    return images_to_tell(first, second) if 0 < second < first < 100 else None


def images_to_tell(first: float, second: float) -> int:
    """How many test images it takes to tell two accuracies in percent apart, each network tried on its own (95 %)."""
    p, q = first / 100, second / 100
    if p == q:
        raise InvalidInput("two equal accuracies cannot be told apart by any number of images")
    return math.ceil(1.96**2 * (p * (1 - p) + q * (1 - q)) / (p - q) ** 2)
