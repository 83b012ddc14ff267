"""Step 1 of compound scaling on the user's own network and data: a small search for alpha, beta, gamma (paper §3.3)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import optuna

from trifold.architecture import Architecture, from_dict, to_dict
from trifold.errors import InvalidInput
from trifold.study.choose import Choice, Score, choose, mean_and_interval, next_seeds, spread
from trifold.study.directions import Plan as Directions
from trifold.study.directions import going_on, named, plan_from_dict, plan_to_dict, shares
from trifold.study.pruning import Hopeless, replay
from trifold.study.run import Common
from trifold.study.trials import Job, Trained, scores_of


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

    @property
    def most_trainings(self) -> int:
        """How many trainings the two rounds have."""
        count = len(self.directions.candidates)
        return count + going_on(count) * (self.seeds - 1)

    @property
    def pruner(self) -> optuna.pruners.BasePruner | None:
        """What stops weak first trainings."""
        return Hopeless() if self.stops else None

    def wanted(self, found: Mapping[Job, Trained]) -> list[Job]:
        """The trainings to come."""
        stopped = [job for job, one in found.items() if not one.whole]
        jobs = next_seeds(self.points, scores_of(found), self.seeds, {candidate for candidate, _ in stopped})
        return jobs or (stopped if self.finish else [])

    def may_stop(self, job: Job) -> bool:
        """Whether it is a first training; to stop one of the others would bend the mean over seeds."""
        return job[1] == 0 and not self.finish


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

    stopped: the candidates, each with the epochs it had. saved: share of the search's epochs, in [0, 1]. best: the
    answer without them; None while they are not trained to their end, so that it is not known what they would have
    changed. done: whether it was done, and not only worked out from trainings that went to their end.
    """

    stopped: Mapping[int, int]
    saved: float
    best: int | None
    done: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a search found so far.

    choice: None while fewer than two candidates have a score; candidates: whose its standings are. trained: how many
    trainings are finished; full: how many the whole grid has, each candidate with every seed. test: each candidate's
    mean accuracy on test in percent, with half its 95 % interval. images: in minival. needed: how many it would take to
    tell the best from the next best by their fitted scores; None where these are equal or not between 0 and 100.
    """

    choice: Choice | None
    candidates: tuple[int, ...]
    early: Early
    images: int
    needed: int | None
    trained: int
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
    best = _best_without(search, scores, stopped) if known else None
    saved = sum(epochs - after for after in stopped.values()) / (epochs * search.most_trainings)
    return Early(stopped=stopped, saved=saved, best=best, done=search.stops)


def _best_without(search: Search, scores: Sequence[Score], stopped: Collection[int]) -> int | None:
    left = [one for one in scores if one.candidate not in stopped]
    return choose(search.points, left).best if len({one.candidate for one in left}) > 1 else None


def _needed(choice: Choice) -> int | None:
    second, first = sorted(one.fitted for one in choice.standings)[-2:]
    return images_to_tell(first, second) if 0 < second < first < 100 else None


def images_to_tell(first: float, second: float) -> int:
    """How many test images it takes to tell two accuracies in percent apart, each network tried on its own (95 %)."""
    p, q = first / 100, second / 100
    if p == q:
        raise InvalidInput("two equal accuracies cannot be told apart by any number of images")
    return math.ceil(1.96**2 * (p * (1 - p) + q * (1 - q)) / (p - q) ** 2)
