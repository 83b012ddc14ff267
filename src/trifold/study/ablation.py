"""What depth, width and resolution bring alone and together, trained with seeds (paper §3.2, §5.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from trifold.architecture import Architecture
from trifold.claimed import Common
from trifold.errors import InvalidInput
from trifold.study.choose import Score, half_of_difference, seed_noise, verdict
from trifold.study.comparison import FOUND, SINGLE, Comparison, comparison_from_dict, comparison_to_dict, different
from trifold.study.measured import Measured, measure
from trifold.study.run import TrainedToTheEnd, rounds
from trifold.train.record import Plan
from trifold.trials import Job, Trained


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation(TrainedToTheEnd):
    """Everything that the trainings depend on. seeds: of every network, in [1, 100]."""

    comparison: Comparison
    common: Common
    seeds: int

    def __post_init__(self) -> None:
        if type(self.seeds) is not int or not 1 <= self.seeds <= 100:
            raise InvalidInput(f"seeds must be a whole number from 1 to 100, got {self.seeds!r}")

    @property
    def question(self) -> dict[str, Any]:
        """Plain values that tell two ablations apart."""
        return {
            "kind": "ablation",
            "comparison": comparison_to_dict(self.comparison),
            "common": asdict(self.common),
            "seeds": self.seeds,
        }

    @property
    def networks(self) -> tuple[Architecture, ...]:
        """The different networks, the baseline first, each with its number in its name."""
        return tuple(replace(one, name=f"{one.name}-{number}") for number, one in enumerate(different(self.comparison)))

    @property
    def numbers(self) -> tuple[int, ...]:
        """Each point's network."""
        known = {one: number for number, one in enumerate(different(self.comparison))}
        name = self.comparison.baseline.architecture.name
        return tuple(known[replace(point.candidate.architecture, name=name)] for point in self.comparison.points)

    @property
    def names(self) -> tuple[str, ...]:
        """Each network by the points that it stands for."""
        names: list[list[str]] = [["baseline"], *([] for _ in self.networks[1:])]
        for point, number in zip(self.comparison.points, self.numbers, strict=True):
            if number:
                width = f", width x{point.candidate.multipliers.width:g}" if point.sweep else f" {point.factor:g}x"
                names[number].append(point.kind + width)
        return tuple(" = ".join(one) for one in names)

    def plan(self, job: Job) -> Plan:
        """Of a training."""
        return self.common.plan(self.networks[job[0]], job[1])

    def wanted(self, found: Mapping[Job, Trained]) -> list[Job]:
        """The trainings to come: one seed of all networks after another."""
        return rounds([self.seeds] * len(self.networks), found)


def ablation_from(question: Mapping[str, Any]) -> Ablation:
    """The ablation whose `question` this was."""
    common = Common.from_dict(question["common"])
    comparison = comparison_from_dict(question["comparison"], num_classes=common.classes, in_channels=common.channels)
    return Ablation(comparison=comparison, common=common, seeds=question["seeds"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How much better on test, in points, `kind` is than `other` at one factor; half: of its 95 % interval.

    same: whether rounding made both one network.
    """

    factor: float
    kind: str
    other: str
    points: float
    half: float
    same: bool

    @property
    def verdict(self) -> str:
        """In a word or two."""
        return "the same network" if self.same else verdict(self.points, self.half)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What the trainings so far say. measured: by network. noise: a seed's standard deviation on test, in points.

    differences: of the first kind there is of found, compound, fast and the rest, to every other at each factor; their
    intervals hold together (Bonferroni), with the noise of all networks pooled.
    """

    measured: Mapping[int, Measured]
    noise: float | None
    differences: tuple[Difference, ...]
    trained: int
    full: int


def findings(ablation: Ablation, found: Mapping[Job, Trained]) -> Findings:
    """The means, and the differences between kinds where both were trained."""
    measured = measure(found)
    scores = [Score(candidate=number, seed=seed, score=one.facts["test"]) for (number, seed), one in found.items()]
    noise = seed_noise(scores)
    return Findings(
        measured=measured,
        noise=noise,
        differences=_differences(ablation, measured, noise),
        trained=len(found),
        full=len(ablation.networks) * ablation.seeds,
    )


def reference(ablation: Ablation) -> str | None:
    """The kind that the others are compared with."""
    kinds = [point.kind for point in ablation.comparison.points if point.sweep is None]
    return next((kind for kind in (FOUND, "compound", "fast", *SINGLE, *kinds) if kind in kinds), None)


def _differences(ablation: Ablation, measured: Mapping[int, Measured], noise: float | None) -> tuple[Difference, ...]:
    """noise: pooled over all networks, with their seeds less one each as degrees of freedom."""
    points = [
        (point, number)
        for point, number in zip(ablation.comparison.points, ablation.numbers, strict=True)
        if point.sweep is None and number in measured
    ]
    named = reference(ablation)
    pairs = [
        (point, number, other, other_number)
        for point, number in points
        if point.kind == named
        for other, other_number in points
        if other.factor == point.factor and other.kind != named
    ]
    freedom = sum(one.seeds - 1 for one in measured.values())
    distinct = sum(number != other_number for _, number, _, other_number in pairs)
    return tuple(
        Difference(
            factor=point.factor,
            kind=point.kind,
            other=other.kind,
            points=measured[number].test[0] - measured[other_number].test[0],
            half=0.0
            if number == other_number
            else half_of_difference(noise, freedom, distinct, measured[number].seeds, measured[other_number].seeds),
            same=number == other_number,
        )
        for point, number, other, other_number in pairs
    )
