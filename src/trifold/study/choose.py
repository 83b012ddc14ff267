"""From noisy scores of a few seeds to a direction, with its uncertainty: means, ties, and a smooth fit.

Scores of neighbouring directions resemble each other, so they are fitted together: a quadratic surface over how the
growth is shared between depth, width and resolution, plus each candidate's own departure from it, both as wide as the
scores themselves suggest. The best of that fit is the answer, not the best of the raw means.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from trifold.errors import InvalidInput
from trifold.study.directions import going_on
from trifold.trials import Job, Trained

DRAWS = 20_000
"""Of the fitted scores, for the chance that each candidate is the best."""

_SURFACE, _OWN = (4.0, 16.0), (0.0, 0.5, 1.0, 2.0, 4.0)
"""How wide the surface's terms and the candidates' own departures may be, in standard deviations of a seed's noise: the
surface is hardly held back, so that a few noisy scores do not flatten it, and where rounding makes candidates depart
from it by much more than a seed does, they are taken as they are (tests/test_choose.py)."""

_TERMS = 6
"""Of the surface, its constant among them."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One finished training: of which candidate, by number from 0; its seed; and its score, larger is better."""

    candidate: int
    seed: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is known of a candidate; scores have the unit of those given.

    mean: of its seeds; interval: half of Student's 95 % interval of that, infinite for one seed. fitted,
    fitted_interval: the same of the smooth fit. chance: that it is the best one. tied: the 95 % interval of the fit's
    difference to the best holds 0.
    """

    seeds: int
    mean: float
    interval: float
    fitted: float
    fitted_interval: float
    chance: float
    tied: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The answer of a search. best: by the fit; argmax: by the raw means; noise: standard deviation of a seed."""

    standings: tuple[Standing, ...]
    best: int
    argmax: int
    noise: float


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half of Student's 95 % interval of it; infinite for one value."""
    count = len(values)
    half = float(student.ppf(0.975, count - 1) * np.std(values, ddof=1)) / math.sqrt(count) if count > 1 else math.inf
    return float(np.mean(values)), half


def scores_of(found: Mapping[Job, Trained]) -> list[Score]:
    """The scores of the trainings that came to their end."""
    return [
        Score(candidate=candidate, seed=seed, score=one.score) for (candidate, seed), one in found.items() if one.whole
    ]


def seed_noise(scores: Sequence[Score]) -> float | None:
    """The pooled standard deviation of seeds of one candidate; None where none has two."""
    groups = [[one.score for one in scores if one.candidate == number] for number in {one.candidate for one in scores}]
    return pooled_noise(groups)[0]


def pooled_noise(groups: Sequence[Sequence[float]]) -> tuple[float | None, int]:
    """The pooled standard deviation within groups, and its degrees of freedom; None and 0 where none has two."""
    freedom = sum(len(group) - 1 for group in groups)
    if not freedom:
        return None, 0
    return math.sqrt(sum(float(np.var(group)) * len(group) for group in groups) / freedom), freedom


def half_of_difference(noise: float | None, freedom: int, pairs: int, seeds: int, other_seeds: int) -> float:
    """Half of the 95 % interval of a difference of two means, of so many intervals that hold together (Bonferroni).

    noise, freedom: of `pooled_noise`; without any noise, which is no measurement of it, the interval is infinite.
    """
    if not noise or not freedom:
        return math.inf
    return float(student.ppf(1 - 0.025 / pairs, freedom)) * noise * math.sqrt(1 / seeds + 1 / other_seeds)


def verdict(points: float, half: float) -> str:
    """A difference and half of its interval in a word or two."""
    if math.isinf(half):
        return "not judged"
    return "better" if points > half else "worse" if points < -half else "not told apart"


def choose(points: Sequence[tuple[float, float, float]], scores: Sequence[Score]) -> Choice:
    """The standing of every candidate that has a score; points: each candidate's `directions.shares`.

    Intervals are Student's, with the freedom of the pooled noise. Where no candidate has two seeds the noise is taken
    from the distances to the surface alone.

    Raises InvalidInput unless at least two candidates have a score.
    """
    scores = sorted(scores, key=lambda one: (one.candidate, one.seed))  # so that no sum depends on who finished first
    numbers = sorted({one.candidate for one in scores})
    if len(numbers) < 2:
        raise InvalidInput(f"a choice must be between at least two trained candidates, got {len(numbers)}")
    groups = [[one.score for one in scores if one.candidate == number] for number in numbers]
    means, counts = np.array([np.mean(group) for group in groups]), np.array([len(group) for group in groups])
    surface = _terms(np.array([points[number] for number in numbers]))
    noise, freedom = seed_noise(scores), len(scores) - len(numbers)
    fitted, covariance, noise = _fit(surface, means, counts, noise)

    wide = float(student.ppf(0.975, freedom or max(1, len(numbers) - _TERMS)))
    best = int(np.argmax(fitted))
    spread = np.sqrt(np.diag(covariance))
    apart = np.sqrt(np.maximum(np.diag(covariance) + covariance[best, best] - 2 * covariance[best], 0))
    draws = np.random.default_rng(0).multivariate_normal(fitted, covariance, size=DRAWS, method="eigh")
    chances = np.bincount(draws.argmax(axis=1), minlength=len(numbers)) / DRAWS
    standings = []
    for i, group in enumerate(groups):
        mean, half = mean_and_interval(group)
        standings.append(
            Standing(
                seeds=len(group),
                mean=mean,
                interval=half,
                fitted=float(fitted[i]),
                fitted_interval=wide * float(spread[i]),
                chance=float(chances[i]),
                tied=bool(fitted[best] - fitted[i] <= wide * apart[i]),
            )
        )
    return Choice(standings=tuple(standings), best=numbers[best], argmax=numbers[int(np.argmax(means))], noise=noise)


def _terms(points: Array) -> Array:
    """The quadratic's five terms of depth's and resolution's shares, centred; width has what is left of 1."""
    depth, resolution = points[:, 0], points[:, 2]
    terms = np.stack([depth, resolution, depth**2, depth * resolution, resolution**2], axis=1)
    terms -= terms.mean(axis=0)
    scale = terms.std(axis=0)
    return terms / np.where(scale > 0, scale, 1)


def _fit(terms: Array, means: Array, counts: Array, noise: float | None) -> tuple[Array, Array, float]:
    """The candidates' fitted scores, their covariance and the noise, at the widths that make the means most likely.

    The means are constant + surface + own departure + noise / sqrt(count); the constant's prior is flat.
    """
    free = noise is None
    scale = noise if noise else max(float(np.std(means)), 1e-12)
    outer, ones, best = terms @ terms.T / terms.shape[1], np.ones_like(means), None
    for wide, own, quiet in product(_SURFACE, _OWN if not free else (0.0,), (0.25, 0.5, 1.0) if free else (1.0,)):
        sigma = scale * quiet
        prior = (wide * sigma) ** 2 * outer + (own * sigma) ** 2 * np.eye(len(means))
        total = prior + np.diag(sigma**2 / counts)
        solved = np.linalg.solve(total, np.stack([means, ones], axis=1))
        weight = ones @ solved[:, 1]
        constant = ones @ solved[:, 0] / weight
        rest = means - constant
        inverse_rest = np.linalg.solve(total, rest)
        likelihood = -0.5 * (np.linalg.slogdet(total)[1] + math.log(weight) + rest @ inverse_rest)
        if best is None or likelihood > best[0]:
            fitted = constant + prior @ inverse_rest
            gain = np.linalg.solve(total, prior)
            left = ones - prior @ solved[:, 1]  # what the constant's own uncertainty adds
            covariance = prior - prior @ gain + np.outer(left, left) / weight
            best = (likelihood, fitted, (covariance + covariance.T) / 2, sigma)
    assert best is not None
    return best[1], best[2], best[3]


def spread(points: Sequence[tuple[float, float, float]]) -> list[int]:
    """An order in which each point is as far as can be from those before it, from the one with most depth on.

    So the first few trainings show the extremes, by which weak ones are judged, and a partial answer spans the grid.
    """
    places = np.array(points)
    order = [int(places[:, 0].argmax())]
    while len(order) < len(places):
        nearest = ((places[:, None] - places[None, order]) ** 2).sum(axis=-1).min(axis=1)
        nearest[order] = -1
        order.append(int(nearest.argmax()))
    return order


def next_seeds(
    points: Sequence[tuple[float, float, float]],
    scores: Sequence[Score],
    seeds: int,
    stopped: Collection[int] = (),
) -> list[tuple[int, int]]:
    """Which trainings come next, (candidate, seed): first each once, as `spread`, then the best quarter's other seeds.

    That is at most half of all candidates' trainings with three seeds or more. Empty when there is nothing left.
    stopped: candidates whose first training was stopped early; they go no further.
    """
    done = {(one.candidate, one.seed) for one in scores}
    first = [(number, 0) for number in spread(points) if number not in stopped]
    if left := [one for one in first if one not in done]:
        return left
    opening = [one for one in scores if one.seed == 0 and one.candidate not in stopped]
    standings = choose(points, opening).standings
    order = sorted(zip(sorted(number for number, _ in first), standings, strict=True), key=lambda one: -one[1].fitted)
    best = [number for number, _ in order[: going_on(len(points))]]
    return [(number, seed) for number in best for seed in range(1, seeds) if (number, seed) not in done]
