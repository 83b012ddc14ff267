"""The choice of a direction from noisy scores: its arithmetic, and planted cases whose answer is known."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from scipy.stats import spearmanr, ttest_1samp

from trifold.baselines import load
from trifold.cost import cost
from trifold.errors import InvalidInput
from trifold.scaling import Coefficients
from trifold.study.choose import Score, choose, mean_and_interval, next_seeds, seed_noise, spread
from trifold.study.directions import Candidate, Grid, equal_cost, shares
from trifold.study.pruning import replay

Random = np.random.Generator


def candidates(net: str) -> tuple[Candidate, ...]:
    baseline, rounding = load(net)
    return equal_cost(baseline, Grid().directions(), 2 * cost(baseline).multiply_adds, rounding=rounding).candidates


def shares_of(net: str) -> list[tuple[float, float, float]]:
    return [shares(load(net)[0], one.architecture) for one in candidates(net)]


def test_the_interval_is_students() -> None:
    values = [98.1, 97.4, 98.8]
    mean, half = mean_and_interval(values)
    low, high = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert mean_and_interval([3.0]) == (3.0, math.inf)


def test_noise_is_pooled_over_candidates() -> None:
    scores = [
        Score(candidate=0, seed=0, score=1),
        Score(candidate=0, seed=1, score=3),
        Score(candidate=1, seed=0, score=9),
    ]
    assert seed_noise(scores) == pytest.approx(math.sqrt(2))
    assert seed_noise(scores[1:]) is None


def test_one_candidate_is_no_choice() -> None:
    with pytest.raises(InvalidInput, match="between at least two trained candidates, got 1"):
        choose([(1, 0, 0)], [Score(candidate=0, seed=0, score=1)])


def test_clear_scores_are_followed_and_order_does_not_matter() -> None:
    points = shares_of("efficientnet_b0")
    scores = [
        Score(candidate=i, seed=seed, score=90 - 40 * (depth - 0.3) ** 2 - 40 * (resolution - 0.3) ** 2 + 0.01 * seed)
        for i, (depth, _, resolution) in enumerate(points)
        for seed in range(3)
    ]
    found = choose(points, scores)
    distances = [(depth - 0.3) ** 2 + (resolution - 0.3) ** 2 for depth, _, resolution in points]
    assert found.best == found.argmax == int(np.argmin(distances))
    assert found.noise == pytest.approx(0.01)
    assert found.standings[found.best].tied
    assert sum(one.tied for one in found.standings) < 4
    assert sum(one.chance for one in found.standings) == pytest.approx(1)
    assert choose(points, scores[::-1]) == found


def test_noise_alone_leaves_nearly_all_tied() -> None:
    random = np.random.default_rng(0)
    points = shares_of("efficientnet_b0")
    shares_tied = []
    for _ in range(20):
        scores = [
            Score(candidate=i, seed=seed, score=float(random.normal(90, 0.5)))
            for i in range(len(points))
            for seed in range(3)
        ]
        shares_tied.append(np.mean([one.tied for one in choose(points, scores).standings]))
    assert np.mean(shares_tied) > 0.75


def test_seeds_are_asked_for_in_two_rounds_and_nothing_twice() -> None:
    points = shares_of("efficientnet_b0")
    scores: list[Score] = []
    asked = next_seeds(points, scores, 3)
    assert sorted(asked) == [(number, 0) for number in range(len(points))]
    while asked := next_seeds(points, scores, 3):
        number, seed = asked[0]
        assert (number, seed) not in {(one.candidate, one.seed) for one in scores}
        scores.append(Score(candidate=number, seed=seed, score=-abs(number - 5.0)))
    assert len(scores) <= len(points) * 3 / 2
    assert {one.candidate for one in scores if one.seed == 2} == {one.candidate for one in scores if one.seed == 1}
    assert next_seeds(points, [Score(candidate=i, seed=0, score=0.0) for i in range(len(points))], 1) == []


@pytest.mark.parametrize("rough", [0, 1, 2, 4])
def test_the_fits_intervals_hold_the_truth_smooth_or_not(rough: float) -> None:
    """rough: by how much candidates depart from the surface, in standard deviations of a seed."""
    points = shares_of("efficientnet_b0")
    places, random, noise = np.array(points), np.random.default_rng(5), 0.2
    held, lost, plainly = [], [], []
    for _ in range(60):
        truth = 90 - 20 * (places[:, 0] - 0.3) ** 2 - 20 * (places[:, 2] - 0.3) ** 2
        truth += rough * noise * random.standard_normal(len(points))
        scores: list[Score] = []
        while asked := next_seeds(points, scores, 3):
            drawn = noise * random.standard_normal(len(asked))
            scores += [
                Score(candidate=i, seed=seed, score=float(truth[i] + one))
                for (i, seed), one in zip(asked, drawn, strict=True)
            ]
        found = choose(points, scores)
        held += [
            abs(one.fitted - true) <= one.fitted_interval for one, true in zip(found.standings, truth, strict=True)
        ]
        lost.append(truth.max() - truth[found.best])
        plainly.append(truth.max() - truth[found.argmax])
    sys.stdout.write(
        f"\nrough {rough}: {np.mean(held):.1%} held; {np.mean(lost):.3f} lost, {np.mean(plainly):.3f} plainly"
    )
    assert np.mean(held) >= 0.9
    assert np.mean(lost) <= np.mean(plainly) + 0.01


# ---- planted cases ----


def of_directions(directions: Sequence[Coefficients]) -> np.ndarray:
    """The shares that directions ask for: log alpha, 2 log beta, 2 log gamma, over their sum."""
    parts = np.array([[math.log(d.alpha), 2 * math.log(d.beta), 2 * math.log(d.gamma)] for d in directions])
    found: np.ndarray = parts / parts.sum(axis=1, keepdims=True)
    return found


def neighbours(directions: Sequence[Coefficients], step: float) -> np.ndarray:
    """Which directions are one grid step apart: beta and gamma at most a step each, which leave alpha no choice."""
    pairs = [[(a.beta - b.beta, a.gamma - b.gamma) for b in directions] for a in directions]
    near: np.ndarray = np.abs(np.array(pairs)).max(axis=-1) <= step + 1e-6
    return near


def plant(points: np.ndarray, apart: np.ndarray, random: Random) -> tuple[np.ndarray, int]:
    """True scores that lose 0.15 one grid step from their best: longer one way than the other, and not quadratic."""
    place = points[:, [0, 2]] @ np.array([[1, 0], [0.5, math.sqrt(3) / 2]])  # shares as an equilateral triangle
    best = int(random.integers(len(points)))
    away, turn = place - place[best], random.uniform(0, math.pi)
    turned = away @ np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    distance = np.hypot(turned[:, 0], random.uniform(1, 2.2) * turned[:, 1])
    angle = np.arctan2(away[:, 1], away[:, 0])
    loss = distance ** random.uniform(1.3, 2) * (1 + random.uniform(0, 0.6) * np.cos(angle - random.uniform(0, 6.28)))
    one_step = apart[best] & (np.hypot(away[:, 0], away[:, 1]) > 0.05)  # others are the same direction, nearly
    return 90 - 0.15 * loss / loss[one_step].min(), best


EPOCHS = 12


def courses(points: np.ndarray, ends: np.ndarray, behind: float, random: Random) -> np.ndarray:
    """Scores by epoch that end where they must; how slowly is another function of the shares, so that many cross.

    behind: about how many points the first epochs are below the end.
    """
    tilt = points[:, [0, 2]] @ random.normal(size=2)
    slow = 1 + 1.2 * (tilt - tilt.min()) / np.ptp(tilt) + 0.1 * random.standard_normal(len(points))
    left = 1 - np.arange(1, EPOCHS + 1) / EPOCHS
    noise = 0.3 * random.standard_normal((len(points), EPOCHS)) * (left > 0)
    found: np.ndarray = ends[:, None] - behind * left[None] ** slow.clip(0.6)[:, None] + noise
    return found


@pytest.mark.parametrize(
    ("grid", "behind"),
    [*product([Grid(), Grid(tolerance=0.15), Grid(growth=1.8)], [0, 6]), (Grid(growth=1.8), 25)],
    ids=str,
)
def test_a_planted_direction_is_found_with_half_the_training(grid: Grid, behind: float) -> None:
    """behind: 0: nothing is stopped early."""
    directions, repetitions = grid.directions(), 100
    points, apart = of_directions(directions), neighbours(directions, grid.step)
    shares, order = points.tolist(), spread(points.tolist())
    random, found, argmax, spent, agree = np.random.default_rng(1), [], [], [], []
    for _ in range(repetitions):
        truth, best = plant(points, apart, random)
        drawn = truth[:, None] + random.uniform(0.4, 0.6) * random.standard_normal((len(points), 3))
        stopped: dict[int, int] = {}
        if behind:
            curves = courses(points, drawn[:, 0], behind, random)
            agree.append(spearmanr(curves[:, EPOCHS // 2 - 1], truth).statistic)
            stopped = replay([(i, dict(enumerate(curves[i], start=1)), float(drawn[i, 0])) for i in order])
        scores: list[Score] = []
        while asked := next_seeds(shares, scores, 3, stopped):
            scores += [Score(candidate=i, seed=seed, score=float(drawn[i, seed])) for i, seed in asked]
        found.append(apart[best, choose(shares, scores).best])
        argmax.append(apart[best, int(drawn.mean(axis=1).argmax())])
        spent.append((EPOCHS * len(scores) + sum(stopped.values())) / (EPOCHS * drawn.size))
    sys.stdout.write(
        f"\n{grid}, {len(points)} directions, {repetitions} times: {np.mean(found):.0%} within one grid step with "
        f"{np.mean(spent):.0%} of the training steps, at most {max(spent):.0%}; the full grid's plain argmax "
        f"{np.mean(argmax):.0%}"
    )
    assert max(spent) <= 0.5
    assert np.mean(found) >= 0.9
    if behind:
        sys.stdout.write(f"; ranks half way and in truth agree by {np.mean(agree):.2f}")
        assert np.mean(agree) < 0.8  # the curves do cross
        assert np.mean(spent) < 0.45  # and something is saved


def test_nothing_is_stopped_before_four_have_ended_nor_one_that_can_still_win() -> None:
    even = {1: 10.0, 2: 20.0}
    assert replay([(number, even, 30.0) for number in range(3)] + [(3, {1: 0.0, 2: 1.0}, 2.0)]) == {}
    four = [(number, even, 30.0) for number in range(4)]
    assert replay([*four, (4, {1: 0.0, 2: 1.0}, 2.0)]) == {4: 1}
    slow = (0, {1: 0.0, 2: 20.0}, 30.0)  # one that gained as much protects the next
    assert replay([slow, *four[1:], (4, {1: 0.0, 2: 1.0}, 2.0)]) == {}
    assert replay([*four, (4, {1: 10.0, 2: 1.0}, 2.0)]) == {}  # at the last epoch there is nothing to save


def test_the_first_trainings_span_the_grid() -> None:
    points = shares_of("efficientnet_b0")
    order = spread(points)
    assert sorted(order) == list(range(len(points)))
    extremes = set(np.argmax(points, axis=0).tolist())
    assert extremes <= set(order[:4])
