"""A family's curve of accuracy over cost: its arithmetic, its coverage, its back-test, the line and the picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import linregress, t

from trifold.baselines import find, load
from trifold.errors import InvalidInput
from trifold.report.family import AccuracyCurve, Level, Size, draw_accuracy
from trifold.scaling import PAPER, RULES, Multipliers, Rounding, scale
from trifold.study.family import (
    FURTHEST,
    Line,
    Point,
    back_test,
    fit_curve,
    same_form,
)


def points(costs: list[float], errors: list[float] | list[tuple[float, ...]], images: int = 10_000) -> list[Point]:
    return [
        Point(multiply_adds=spent, errors=error if isinstance(error, tuple) else (error,), images=images)
        for spent, error in zip(costs, errors, strict=True)
    ]


COSTS = [1e6, 2.1e6, 3.9e6, 8.5e6, 16e6]
ERRORS = [0.30, 0.26, 0.19, 0.17, 0.13]


# ---- the fit ----


def test_equal_weights_are_scipys_regression_and_the_textbooks_interval() -> None:
    curve = fit_curve(points(COSTS, ERRORS))
    x, y = np.log(COSTS), np.log(ERRORS)
    known = linregress(x, y)
    assert curve.slope == pytest.approx(known.slope, rel=1e-12)
    for place in (5e5, 4e6, 6.4e7):
        at = math.log(place)
        middle = known.intercept + known.slope * at
        noise = math.sqrt(float(np.sum((y - known.intercept - known.slope * x) ** 2)) / 3)
        # The fitted mean's variance from scipy's errors of slope and intercept, whose covariance is -mean(x) * var.
        fitted = known.intercept_stderr**2 + at**2 * known.stderr**2 - 2 * at * x.mean() * known.stderr**2
        half = t.ppf(0.975, 3) * math.sqrt(noise**2 + fitted)
        predicted = curve.predict(place)
        assert predicted.accuracy == pytest.approx(1 - math.exp(middle), rel=1e-9)
        assert predicted.low == pytest.approx(1 - min(1, math.exp(middle + half)), rel=1e-6, abs=1e-9)
        assert predicted.high == pytest.approx(1 - math.exp(middle - half), rel=1e-6)


def test_runs_are_weights() -> None:
    errors = [(0.31, 0.29), (0.26,), (0.2, 0.19, 0.18), (0.17,), (0.12, 0.14, 0.13, 0.13)]
    curve = fit_curve(points(COSTS, errors))
    counts = np.array([len(one) for one in errors])
    x, y = np.log(COSTS), np.log([np.mean(one) for one in errors])
    design = np.stack([np.ones(5), x], axis=1)
    root = np.sqrt(counts)
    (intercept, slope), (rest,), _, _ = np.linalg.lstsq(design * root[:, None], y * root, rcond=None)
    assert curve.slope == pytest.approx(slope, rel=1e-9)
    assert curve.noise == pytest.approx(math.sqrt(rest / 3), rel=1e-9)
    inverse = np.linalg.inv(design.T @ np.diag(counts) @ design)
    at = np.array([1.0, math.log(3e7)])
    half = t.ppf(0.975, 3) * math.sqrt(rest / 3 * (1 / 2 + at @ inverse @ at))
    predicted = curve.predict(3e7, seeds=2)
    assert predicted.high == pytest.approx(1 - math.exp(intercept + slope * at[1] - half), rel=1e-6)
    assert predicted.low == pytest.approx(1 - math.exp(intercept + slope * at[1] + half), rel=1e-6)
    assert curve.seeds == 1
    assert curve.predict(3e7) == curve.predict(3e7, seeds=1)


def test_a_planted_law_is_found_exactly() -> None:
    curve = fit_curve(points(COSTS, [3 * spent**-0.17 for spent in COSTS]))
    assert curve.slope == pytest.approx(-0.17, rel=1e-9)
    predicted = curve.predict(1.2e8)
    assert predicted.accuracy == pytest.approx(1 - 3 * 1.2e8**-0.17, rel=1e-9)
    assert predicted.high - predicted.low < 1e-9


@pytest.mark.parametrize("counts", [(1, 1, 1, 1, 1), (3, 3, 3, 3, 3), (5, 1, 2, 1, 4), (1, 1, 2)])
def test_the_interval_covers_a_new_network_in_95_of_100_planted_cases(counts: tuple[int, ...]) -> None:
    draws, noise, seeds = np.random.default_rng(7), 0.05, 2
    costs, new = COSTS[: len(counts)], 4e7
    covered = 0
    for _ in range(2000):
        logs = [[1.5 - 0.2 * math.log(spent) + noise * z for z in draws.standard_normal(n)]
                for spent, n in zip(costs, counts, strict=True)]  # fmt: skip
        errors = [tuple(math.exp(one) for one in run) for run in logs]
        predicted = fit_curve(points(costs, errors)).predict(new, seeds=seeds)
        seen = np.mean(np.exp(1.5 - 0.2 * math.log(new) + noise * draws.standard_normal(seeds)))
        covered += bool(predicted.low <= 1 - seen <= predicted.high)
    assert 0.92 <= covered / 2000 <= 0.98


def test_more_seeds_narrow_the_interval() -> None:
    curve = fit_curve(points(COSTS, ERRORS))
    widths = [(one := curve.predict(3e7, seeds=seeds)).high - one.low for seeds in (1, 2, 4, 100)]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 1.2 * widths[2]

    draws, mean = np.random.default_rng(0), {}
    for seeds in (1, 4):
        found = []
        for _ in range(300):
            errors = [tuple(0.9 * spent**-0.1 * np.exp(0.05 * draws.standard_normal(seeds))) for spent in COSTS]
            one = fit_curve(points(COSTS, errors)).predict(3e7)
            found.append(one.high - one.low)
        mean[seeds] = np.mean(found)
    assert mean[4] == pytest.approx(mean[1] / 2, rel=0.1)  # means of four scatter half as much


def test_no_error_counts_as_half_an_image() -> None:
    point = Point(multiply_adds=1e6, errors=(0.0, 0.0), images=500)
    assert point.error == 0.001
    assert point.accuracy == 1
    assert Point(multiply_adds=1e6, errors=(0.0, 0.01), images=500).error == 0.005
    assert math.isfinite(fit_curve([*points([1e5, 2e5], [0.1, 0.05]), point]).slope)


def test_an_interval_never_leaves_0_to_100_percent() -> None:
    curve = fit_curve(points([1e6, 1.1e6, 1.2e6], [0.9, 0.1, 0.8]))
    for spent in (1e2, 1e6, 1e12):
        predicted = curve.predict(spent)
        assert 0 <= predicted.low <= predicted.accuracy <= predicted.high <= 1


def test_the_curve_reaches_eight_times_as_far_and_no_farther() -> None:
    curve = fit_curve(points(COSTS, ERRORS))
    assert FURTHEST == 8
    assert [curve.reaches(spent) for spent in (1e6 / 8.01, 1e6 / 8, 16e6 * 8, 16e6 * 8.01)] == [
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: fit_curve(points(COSTS[:2], ERRORS[:2])), "at least 3 networks of different cost, got 2"),
        (lambda: fit_curve(points([1e6] * 3, ERRORS[:3])), "at least 3 networks of different cost, got 1"),
        (lambda: fit_curve(points(COSTS, ERRORS)).predict(1e6, seeds=0), "seeds must be at least 1, got 0"),
        (lambda: Point(multiply_adds=0, errors=(0.1,), images=10), "multiply_adds must be more than 0, got 0"),
        (lambda: Point(multiply_adds=1, errors=(1.1,), images=10), "errors must be one or more numbers from 0 to 1"),
        (lambda: Point(multiply_adds=1, errors=(), images=10), "errors must be one or more numbers from 0 to 1"),
        (lambda: Point(multiply_adds=1, errors=(0.1,), images=0), "images must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_fitted_is_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        make()


some_points = st.lists(
    st.tuples(st.integers(50, 100), st.lists(st.floats(0, 1), min_size=1, max_size=4)),
    min_size=4,
    max_size=8,
    unique_by=lambda one: one[0],
).map(lambda found: points([10 ** (k / 10) for k, _ in found], [tuple(errors) for _, errors in found], images=359))


@given(some_points, st.randoms())
def test_the_order_of_the_points_changes_nothing(some: list[Point], order: object) -> None:
    shuffled = list(some)
    order.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    assert fit_curve(shuffled) == fit_curve(some)
    assert back_test(shuffled) == back_test(some)


@given(some_points, st.floats(1e-3, 1e3))
def test_the_unit_of_multiply_adds_changes_no_prediction(some: list[Point], unit: float) -> None:
    other = [replace(one, multiply_adds=one.multiply_adds * unit) for one in some]
    mine, theirs = fit_curve(some).predict(1e8), fit_curve(other).predict(1e8 * unit)
    assert (mine.accuracy, mine.low, mine.high) == pytest.approx((theirs.accuracy, theirs.low, theirs.high), abs=1e-9)


# ---- the back-test ----


def test_the_back_tests_arithmetic() -> None:
    errors: list[tuple[float, ...]] = [(0.30,), (0.26,), (0.19,), (0.17,), (0.12, 0.14)]
    tested = back_test(points(COSTS, errors))
    assert tested is not None
    x, y = np.log(COSTS[:4]), np.log([0.30, 0.26, 0.19, 0.17])
    known = linregress(x, y)
    at = math.log(16e6)
    noise = math.sqrt(float(np.sum((y - known.intercept - known.slope * x) ** 2)) / 2)
    spread = float(np.sum((x - x.mean()) ** 2))
    half = t.ppf(0.975, 2) * noise * math.sqrt(1 / 2 + 1 / 4 + (at - x.mean()) ** 2 / spread)
    predicted = math.exp(known.intercept + known.slope * at)
    assert tested.seeds == 2
    assert tested.predicted.accuracy == pytest.approx(1 - predicted, rel=1e-12)
    assert tested.predicted.low == pytest.approx(1 - predicted * math.exp(half), rel=1e-12)
    assert tested.predicted.high == pytest.approx(1 - predicted * math.exp(-half), rel=1e-12)
    assert tested.observed == pytest.approx(0.87)
    assert tested.off == pytest.approx(100 * (predicted - 0.13), rel=1e-9)
    assert tested.holds == (tested.predicted.low <= 0.87 <= tested.predicted.high)


def test_the_back_test_says_when_the_interval_does_not_hold_what_is_observed() -> None:
    line = [2 * spent**-0.15 for spent in COSTS[:4]]
    noisy = [error * (1 + 0.001 * sign) for error, sign in zip(line, (1, -1, -1, 1), strict=True)]
    on = back_test(points(COSTS, [*noisy, 2 * 16e6**-0.15]))
    floor = back_test(points(COSTS, [*noisy, line[-1]]))
    assert on is not None
    assert on.holds
    assert floor is not None
    assert not floor.holds
    assert floor.off < 0


def test_three_networks_are_too_few_for_a_back_test() -> None:
    assert back_test(points(COSTS[:3], ERRORS[:3])) is None


# ---- the line ----


@pytest.mark.parametrize("name", ["mini", "b0", "resnet18", "mobilenet_v2", "lite0"])
@pytest.mark.parametrize("rule", ["compound", "depth", "fast"])
def test_a_member_is_found_at_the_least_phi_that_makes_it(name: str, rule: str) -> None:
    (baseline, rounding), coefficients = load(name), RULES[rule]
    line = Line(baseline=baseline, coefficients=coefficients, rounding=rounding)
    grid = range(-700, 1300, 3)
    made = {k: scale(baseline, coefficients.multipliers(k / 1000), rounding) for k in grid}
    for k in list(grid)[::60]:
        phi = line.phi_of(replace(made[k], name="other"))
        assert phi is not None
        assert scale(baseline, coefficients.multipliers(phi), rounding) == made[k]
        assert phi <= k / 1000
        if phi > -3:
            assert scale(baseline, coefficients.multipliers(phi - 0.001), rounding) != made[k]


def test_what_is_off_the_line_has_no_phi() -> None:
    baseline, rounding = load("b0")
    line = Line(baseline=baseline, coefficients=PAPER, rounding=rounding)
    deeper = scale(baseline, Multipliers(depth=2), rounding)
    assert line.phi_of(deeper) is None
    assert replace(line, coefficients=RULES["depth"]).phi_of(deeper) == 0.808  # 8 of 4 layers: log2(7 / 4) = 0.8074


def test_only_layers_channels_and_resolution_may_differ() -> None:
    baseline = find("b0")
    assert same_form(find("b3"), baseline)
    assert not same_form(find("lite0"), baseline)
    assert not same_form(find("mini"), baseline)
    rows = baseline.stages
    for changed in (
        replace(baseline, stages=rows[:-1]),
        replace(baseline, stages=(*rows[:-1], replace(rows[-1], kernel_size=5))),
        replace(baseline, stages=(*rows[:-1], replace(rows[-1], stride=2))),
        replace(baseline, stages=(*rows[:-1], replace(rows[-1], expand_ratio=4))),
        replace(baseline, stem=replace(baseline.stem, stride=1)),
        replace(baseline, head=replace(baseline.head, channels=0)),
    ):
        assert not same_form(changed, baseline)
        assert Line(baseline=baseline, coefficients=PAPER, rounding=Rounding()).phi_of(changed) is None


# ---- the picture ----


@pytest.mark.parametrize("predicted", [True, False])
def test_the_picture_has_something_on_it(tmp_path: Path, predicted: bool) -> None:
    sizes = [
        Size(f"φ {k}\n{90 + k} %", 1e6 * 2**k, 0.9 + 0.01 * k, 0.85, 0.97, k < 3 or not predicted) for k in range(5)
    ]
    band = [Level(size.multiply_adds, size.accuracy, 0.7, 1.0) for size in sizes]
    draw_accuracy(AccuracyCurve(tuple(sizes), tuple(band), "95 %"), tmp_path / "picture.png", title="t")
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]
    with Image.open(tmp_path / "picture.png") as image:
        assert min(image.size) >= 400
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 50
