"""The candidates of a coefficient search: the grid, equal real cost, merging, and what cannot be reached."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
from click.testing import CliRunner

from trifold.baselines import load
from trifold.cli.directions import directions as command
from trifold.cost import cost
from trifold.errors import InvalidInput
from trifold.scaling import PAPER, Coefficients, Multipliers, Rounding, scale
from trifold.study.directions import EQUAL, WIDEST_ADJUSTMENT, Grid, Plan, equal_cost, shares

NETS = ["mini", "efficientnet_b0", "mobilenet_v2", "resnet18"]


def plan_of(net: str, factor: float = 2, grid: Grid | None = None) -> tuple[Plan, Rounding]:
    baseline, rounding = load(net)
    own = cost(baseline, num_classes=10).multiply_adds
    return (
        equal_cost(baseline, (grid or Grid()).directions(), own * factor, rounding=rounding, num_classes=10),
        rounding,
    )


def test_the_grid_is_every_triple_near_the_growth() -> None:
    grid = Grid(step=0.05, tolerance=0.08)
    found = grid.directions()
    values = [1 + i / 20 for i in range(61)]
    wanted = {
        (round(a, 6), round(b, 6), round(c, 6))
        for a in values
        for b in values
        for c in values
        if abs(a * b * b * c * c - 2) <= 0.08 + 1e-9
    }
    assert {(one.alpha, one.beta, one.gamma) for one in found} == wanted
    assert len(found) == len(wanted)
    assert PAPER in found  # 1.2, 1.1, 1.15: the product is 1.92
    assert list(found) == sorted(found, key=lambda one: (one.alpha, one.beta, one.gamma))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"step": 0}, "grid: step must be a number from 0.005 to 1, got 0"),
        ({"growth": 1}, "grid: growth must be a number from 1.1 to 16, got 1"),
        ({"tolerance": -0.1}, "grid: tolerance must be a number from 0 to 2, got -0.1"),
        ({"step": float("nan")}, "grid: step must be a number from 0.005 to 1, got nan"),
    ],
)
def test_a_grid_out_of_range_is_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Grid(**values)


def test_a_grid_without_a_direction_says_so() -> None:
    with pytest.raises(InvalidInput, match=r"no alpha, beta, gamma in steps of 0.7 .* within 0.01 of 2"):
        Grid(step=0.7, tolerance=0.01).directions()


@pytest.mark.parametrize("factor", [1.5, 2, 4])
@pytest.mark.parametrize("net", NETS)
def test_candidates_cost_what_was_asked_and_are_what_their_numbers_say(net: str, factor: float) -> None:
    baseline, _ = load(net)
    plan, rounding = plan_of(net, factor)
    seen = [direction for one in plan.candidates for direction in one.directions]
    seen += [one.direction for one in plan.unreachable]
    assert sorted(seen, key=str) == sorted(Grid().directions(), key=str)
    assert len({one.architecture for one in plan.candidates}) == len(plan.candidates)
    for one in plan.candidates:
        assert one.multipliers == one.directions[0].multipliers(one.phi)
        width = one.multipliers.width * one.width_adjustment
        assert scale(baseline, replace(one.multipliers, width=width), rounding) == one.architecture
        assert cost(one.architecture, num_classes=10) == one.cost
        assert one.off == one.cost.multiply_adds / (factor * cost(baseline, num_classes=10).multiply_adds) - 1
        assert abs(one.off) <= EQUAL
        assert abs(one.width_adjustment - 1) <= WIDEST_ADJUSTMENT


@pytest.mark.parametrize("net", NETS)
def test_what_is_not_adjusted_is_nearest_and_what_is_has_no_equal_on_the_dial(net: str) -> None:
    baseline, _ = load(net)
    plan, rounding = plan_of(net)

    def all_off(direction: Coefficients) -> list[float]:
        networks = {scale(baseline, direction.multipliers(k / 1000), rounding) for k in range(2000)}
        target = 2 * cost(baseline, num_classes=10).multiply_adds
        return [cost(one, num_classes=10).multiply_adds / target - 1 for one in networks]

    for one in plan.candidates:
        nearest = min(map(abs, all_off(one.directions[0])))
        if one.width_adjustment == 1:
            assert abs(one.off) == nearest
        else:
            assert nearest > EQUAL
    for missed in plan.unreachable:
        assert min(map(abs, all_off(missed.direction))) > EQUAL
        assert abs(missed.nearest) > EQUAL


def test_depths_under_one_and_a_quarter_are_one_network_on_b0() -> None:
    directions = [Coefficients(alpha=alpha, beta=1, gamma=1) for alpha in (1.05, 1.1, 1.2, 1.25)]
    baseline, rounding = load("efficientnet_b0")
    deeper = {scale(baseline, one.multipliers(1), rounding) for one in directions}
    assert len(deeper) == 1
    plan = equal_cost(baseline, directions, 2 * cost(baseline).multiply_adds, rounding=rounding)
    assert [one.directions for one in plan.candidates] == [tuple(directions)]


def test_shares_are_of_the_growth_that_rounding_left() -> None:
    b0, _ = load("efficientnet_b0")
    assert shares(b0, scale(b0, Multipliers(depth=2))) == pytest.approx((1, 0, 0))
    assert shares(b0, scale(b0, Multipliers(width=2))) == pytest.approx((0, 1, 0))
    assert shares(b0, scale(b0, Multipliers(resolution=2))) == pytest.approx((0, 0, 1))
    large = shares(b0, scale(b0, PAPER.multipliers(8)))  # 0.279, 0.292, 0.428 before rounding
    assert large == pytest.approx((0.279, 0.292, 0.428), abs=0.01)
    with pytest.raises(InvalidInput, match="is no larger than efficientnet_b0"):
        shares(b0, b0)
    with pytest.raises(InvalidInput, match="has 5 stages, efficientnet_b0 7"):
        shares(b0, load("mini")[0])


def test_rounding_is_a_setting() -> None:
    baseline, rounding = load("mini")
    own = cost(baseline).multiply_adds
    coarse = equal_cost(baseline, Grid().directions(), 2 * own, rounding=rounding)
    fine = equal_cost(baseline, Grid().directions(), 2 * own, rounding=replace(rounding, divisor=1, resolution_step=1))
    assert len(fine.candidates) > len(coarse.candidates)


@pytest.mark.parametrize("factor", [1.0, 1.03, 0.5, float("nan"), float("inf")])
def test_a_target_must_be_more_than_the_baseline(factor: float) -> None:
    baseline, _ = load("mini")
    with pytest.raises(InvalidInput, match=r"target must be more than 3% over efficientnet_mini's own [\d,]+ multiply"):
        equal_cost(baseline, [PAPER], factor * cost(baseline).multiply_adds)


def test_a_baseline_too_small_for_its_rounding_says_how_far_off_it_is() -> None:
    baseline, _ = load("mini")
    rounding = Rounding(divisor=256, resolution_step=256)
    tiny = replace(baseline, resolution=32)
    with pytest.raises(InvalidInput, match=r"no direction has a network within 3% of .* take a larger target"):
        equal_cost(tiny, [Coefficients(alpha=3, beta=1, gamma=1)], 1.2 * cost(tiny).multiply_adds, rounding=rounding)


def test_the_command_prints_the_plan_without_torch_in_under_a_second() -> None:
    runner = CliRunner()
    start = time.process_time()
    done = runner.invoke(command, ["efficientnet_b0"], catch_exceptions=False)
    assert time.process_time() - start < 1
    assert done.exit_code == 0
    assert "22 directions are 16 networks within 3% of 771,629,504 multiply-adds" in done.output
    assert "(1.9, 1, 1) is the same network as (2, 1, 1), (2.1, 1, 1)" in done.output


def test_the_command_gives_json_and_one_line_for_bad_input() -> None:
    runner = CliRunner()
    done = runner.invoke(command, ["mini", "--classes", "10", "--json"], catch_exceptions=False)
    found = json.loads(done.output)
    plan, _ = plan_of("mini")
    assert found["target"] == plan.target
    assert [one["multiply_adds"] for one in found["candidates"]] == [one.cost.multiply_adds for one in plan.candidates]
    assert len(found["unreachable"]) == len(plan.unreachable)
    for wrong in (["--step", "0"], ["--factor", "0.5"], ["--tolerance", "-1"], ["--divisor", "0"]):
        done = runner.invoke(command, ["mini", *wrong])
        assert done.exit_code != 0
        assert "Traceback" not in done.output
