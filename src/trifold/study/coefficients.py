"""Step 1 of compound scaling on the user's own network and data: a small search for alpha, beta, gamma (paper §3.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trifold.architecture import Architecture, to_dict
from trifold.data.dataset import Dataset
from trifold.errors import InvalidInput
from trifold.study.choose import Choice, Score, choose, going_on, mean_and_interval, next_seeds
from trifold.study.directions import Plan as Directions
from trifold.study.directions import shares
from trifold.study.trials import Job, Storage, Trained, finished, open_study, scores_of, work
from trifold.train.assemble import Progress
from trifold.train.machine import Machine
from trifold.train.recipe import Recipe
from trifold.train.record import Plan, asked, run_id
from trifold.train.run import train

Shown = Callable[[Job, Mapping[Job, Trained]], AbstractContextManager[Progress | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Everything that a search's scores depend on.

    directions: the candidates, at equal cost. seeds: of the candidates that go on to the second round, in [1, 100]; the
    others have one. split_seed: of the one split that all trainings share, so that candidates are compared on the same
    images. fingerprint: the dataset's.
    """

    baseline: Architecture
    directions: Directions
    recipe: Recipe
    seeds: int
    split_seed: int
    fingerprint: str

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
            "candidates": [to_dict(one.architecture) for one in self.directions.candidates],
            "recipe": self.recipe.to_dict(),
            "seeds": self.seeds,
            "split_seed": self.split_seed,
            "data": self.fingerprint,
        }

    @property
    def most_trainings(self) -> int:
        """How many trainings the two rounds have."""
        count = len(self.points)
        return count + going_on(count) * (self.seeds - 1)

    def wanted(self, scores: list[Score]) -> list[Job]:
        """The trainings to come."""
        return next_seeds(self.points, scores, self.seeds)

    def run(self, job: Job) -> Plan:
        """The training of a candidate with a seed."""
        candidate, seed = job
        network = replace(self.directions.candidates[candidate].architecture, name=f"{self.baseline.name}-{candidate}")
        return Plan(architecture=network, recipe=self.recipe, seed=seed, split_seed=self.split_seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a search found so far.

    choice: None while fewer than two candidates have a score. trained: how many trainings are finished; full: how many
    the whole grid has, each candidate with every seed. test: each candidate's mean accuracy on test in percent, with
    half its 95 % interval. images: in minival. needed: how many it would take to tell the best from the next best by
    their fitted scores; None where these are equal or not between 0 and 100.
    """

    choice: Choice | None
    images: int
    needed: int | None
    trained: int
    full: int
    test: dict[int, tuple[float, float]]


def search_coefficients(
    search: Search,
    dataset: Dataset,
    *,
    folder: str | Path,
    storage: Storage,
    machine: Machine | None = None,
    shown: Shown | None = None,
) -> dict[Job, Trained]:
    """Trains what the search still wants, beside any other worker on its storage; run folders lie in folder/runs.

    A training's score is its accuracy on minival in percent, at the epoch whose weights are kept. shown: called with
    each training before it begins and with what is finished; what it gives is entered for its progress.

    Raises what `run.train` raises, and InvalidInput if the storage is down or another study's.
    """
    study = open_study(storage, search.question)

    def one(job: Job) -> Trained:
        plan = search.run(job)
        name = f"{job[0]:02d}-seed-{job[1]}-{run_id(asked(plan, dataset.fingerprint))[:8]}"
        with nullcontext() if shown is None else shown(job, finished(study)) as progress:
            record = train(dataset, plan, run_folder=Path(folder) / "runs" / name, machine=machine, progress=progress)
        facts = {
            "run": name,
            "test": 100 * record.accuracy,
            "seconds": record.result.seconds,
            "minival": record.result.images["minival"],
        }
        return Trained(score=100 * record.result.minival_accuracy, facts=facts)

    return work(study, search.wanted, one)


def answer(search: Search, found: Mapping[Job, Trained]) -> Answer:
    """What the trainings so far say."""
    scores = scores_of(found)
    trained = {candidate for candidate, _ in found}
    test = {
        number: mean_and_interval([one.facts["test"] for (candidate, _), one in found.items() if candidate == number])
        for number in sorted(trained)
    }
    choice = choose(search.points, scores) if len(trained) > 1 else None
    return Answer(
        choice=choice,
        images=max((one.facts["minival"] for one in found.values()), default=0),
        needed=None if choice is None else _needed(choice),
        trained=len(found),
        full=len(search.points) * search.seeds,
        test=test,
    )


def _needed(choice: Choice) -> int | None:
    second, first = sorted(one.fitted for one in choice.standings)[-2:]
    return images_to_tell(first, second) if 0 < second < first < 100 else None


def images_to_tell(first: float, second: float) -> int:
    """How many test images it takes to tell two accuracies in percent apart, each network tried on its own (95 %)."""
    p, q = first / 100, second / 100
    if p == q:
        raise InvalidInput("two equal accuracies cannot be told apart by any number of images")
    return math.ceil(1.96**2 * (p * (1 - p) + q * (1 - q)) / (p - q) ** 2)
