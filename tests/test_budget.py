from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests import strategies
from trifold.architecture import Architecture, Head, Stage, Stem
from trifold.baselines import find, load
from trifold.budget import LIMITS, Budget, fit, parse_budget
from trifold.cost import Cost, cost
from trifold.errors import ImpossibleBudget, InvalidInput
from trifold.scaling import PAPER, RULES, Coefficients, Rounding, scale


def _grid(architecture: Architecture, coefficients: Coefficients, rounding: Rounding) -> list[tuple[int, Cost]]:
    """The cost at every phi of the grid that can be described; equal networks are costed once."""
    points: list[tuple[int, Cost]] = []
    last: Architecture | None = None
    for k in range(-3000, 12001):
        try:
            scaled = scale(architecture, coefficients.multipliers(k / 1000), rounding)
        except InvalidInput:
            break
        points.append((k, points[-1][1] if scaled == last else cost(scaled)))
        last = scaled
    return points


def _best(points: list[tuple[int, Cost]], budget: Budget) -> tuple[int, int, int] | None:
    """The definition, by brute force: most multiply-adds, then most parameters, then smallest phi."""
    fitting = [(c.multiply_adds, c.parameters, -k) for k, c in points if not budget.broken_by(c)]
    return max(fitting, default=None)


@pytest.mark.parametrize("rule", ["compound", "width", "tiny"])
@pytest.mark.parametrize("name", ["b0", "resnet50", "efficientnet_es"])
def test_no_phi_of_the_whole_grid_gives_a_larger_network(name: str, rule: str) -> None:
    architecture, rounding = load(name)
    points = _grid(architecture, RULES[rule], rounding)
    for index in (0, 700, 2_900, 3_000, 3_001, 4_200, 6_000):
        at = points[index][1]
        for budget in (
            Budget(multiply_adds=at.multiply_adds),
            Budget(multiply_adds=at.multiply_adds * 1.01, parameters=at.parameters * 0.97),
            Budget(activations=at.activations, file_bytes=at.file_bytes + 10_000),
        ):
            expected = _best(points, budget)
            if expected is None:
                with pytest.raises(ImpossibleBudget):
                    fit(architecture, budget, RULES[rule], rounding=rounding)
                continue
            found = fit(architecture, budget, RULES[rule], rounding=rounding)
            assert (found.cost.multiply_adds, found.cost.parameters, -round(found.phi * 1000)) == expected


@settings(max_examples=15)
@given(strategies.architectures(max_stages=2), strategies.coefficients(), strategies.roundings(), st.data())
def test_fit_is_the_definition_by_brute_force_on_random_networks(
    architecture: Architecture, coefficients: Coefficients, rounding: Rounding, data: st.DataObject
) -> None:
    points = _grid(architecture, coefficients, rounding)
    anchor, other = (data.draw(st.sampled_from(points))[1] for _ in range(2))
    name = data.draw(st.sampled_from(sorted(LIMITS)))
    more = data.draw(st.sampled_from((1, 1.02)))
    budget = Budget(**{"multiply_adds": anchor.multiply_adds * more, name: max(1, LIMITS[name](other))})  # type: ignore[arg-type]  # counts
    expected = _best(points, budget)
    if expected is None:
        with pytest.raises(ImpossibleBudget):
            fit(architecture, budget, coefficients, rounding=rounding)
        return
    found = fit(architecture, budget, coefficients, rounding=rounding)
    assert (found.cost.multiply_adds, found.cost.parameters, -round(found.phi * 1000)) == expected
    assert scale(architecture, found.multipliers, rounding) == found.architecture
    filled = fit(architecture, budget, coefficients, rounding=rounding, fill_width=True)
    assert (filled.cost.multiply_adds, filled.cost.parameters) >= expected[:2]
    assert not budget.broken_by(filled.cost)
    assert scale(architecture, filled.multipliers, rounding) == filled.architecture


def _one_row(channels: int, **row: Any) -> Architecture:
    stage = Stage(operator="mbconv", channels=channels, **row)
    return Architecture(name="one row", resolution=32, stem=Stem(channels=16), stages=(stage,), head=Head())


@pytest.mark.parametrize("ratio", [0.5, 1, 2])
def test_widths_that_meet_at_the_baseline_itself_are_no_trap(ratio: float) -> None:
    architecture = _one_row(int(16 / ratio), expand_of="output", expand_ratio=ratio)
    points = _grid(architecture, PAPER, Rounding())
    budget = Budget(multiply_adds=1e7)
    expected = _best(points, budget)
    found = fit(architecture, budget)
    assert (found.cost.multiply_adds, found.cost.parameters, -round(found.phi * 1000)) == expected


def test_filling_never_gives_a_smaller_network_where_an_expansion_vanishes() -> None:
    architecture = replace(_one_row(20, expand_of="output"), stem=Stem(channels=24))
    budget = Budget(multiply_adds=cost(architecture).multiply_adds)
    assert fit(architecture, budget, fill_width=True).cost.multiply_adds >= fit(architecture, budget).cost.multiply_adds


def test_a_held_resolution_lets_depth_and_width_go_on_to_the_end_of_the_dial() -> None:
    steep = Coefficients(alpha=1.2, beta=1.1, gamma=2)
    found = fit(_one_row(24), Budget(max_resolution=64), steep)
    assert found.binding == ("phi",)
    assert (
        scale(_one_row(24), replace(steep.multipliers(0), depth=1.2**12, width=1.1**12)).stages
        == found.architecture.stages
    )
    for largest in (8188, 8192):
        assert fit(find("b0"), Budget(max_resolution=largest), Coefficients(alpha=1, beta=1, gamma=1.4)).binding == (
            "phi",
        )


@given(strategies.architectures(max_stages=2), st.floats(0.3, 1), st.floats(1, 3))
def test_more_budget_never_gives_a_smaller_network(architecture: Architecture, share: float, more: float) -> None:
    limit = cost(architecture).multiply_adds * share + 1e4
    try:
        small = fit(architecture, Budget(multiply_adds=limit))
    except ImpossibleBudget:
        assume(False)
    large = fit(architecture, Budget(multiply_adds=limit * more))
    assert large.cost.multiply_adds >= small.cost.multiply_adds


def test_the_smallest_phi_of_the_plateau_is_returned() -> None:
    found = fit(find("b0"), Budget(multiply_adds=385_814_752))
    assert found.architecture == find("b0")
    k = round(found.phi * 1000)
    assert scale(find("b0"), PAPER.multipliers((k - 1) / 1000)) != find("b0")
    assert scale(find("b0"), PAPER.multipliers(k / 1000)) == find("b0")


def test_binding_names_the_limit_that_the_next_network_breaks() -> None:
    b0 = find("b0")
    assert fit(b0, Budget(multiply_adds=1.5e9, parameters=8e6)).binding == ("parameters",)
    assert fit(b0, Budget(multiply_adds=1.5e9, parameters=80e6)).binding == ("multiply_adds",)
    assert fit(b0, Budget(multiply_adds=1e17)).binding == ("phi",)
    assert fit(b0, Budget(multiply_adds=1e17), RULES["depth"]).binding == ("description",)


def test_unused_is_the_share_of_each_limit_left() -> None:
    found = fit(find("b0"), Budget(multiply_adds=1e9, parameters=1e8))
    assert found.unused["multiply_adds"] == pytest.approx(1 - found.cost.multiply_adds / 1e9)
    assert found.unused["parameters"] == pytest.approx(1 - found.cost.parameters / 1e8)


def test_fill_width_spends_more_and_stays_within() -> None:
    budget = Budget(file_bytes=30e6)
    plain = fit(find("b0"), budget)
    filled = fit(find("b0"), budget, fill_width=True)
    assert plain.unused["file_bytes"] > 0.25
    assert filled.unused["file_bytes"] < 0.01
    assert filled.width_adjustment > 1
    assert not budget.broken_by(filled.cost)
    assert [s.layers for s in filled.architecture.stages] == [s.layers for s in plain.architecture.stages]
    assert filled.architecture.resolution == plain.architecture.resolution
    assert scale(find("b0"), filled.multipliers) == filled.architecture


def test_a_resolution_range_clamps_while_depth_and_width_go_on() -> None:
    free = fit(find("b0"), Budget(multiply_adds=4e9))
    held = fit(find("b0"), Budget(multiply_adds=4e9, max_resolution=224))
    assert held.architecture.resolution == 224 < free.architecture.resolution
    assert held.phi > free.phi
    assert held.cost.parameters > free.cost.parameters
    assert held.multipliers.resolution == 1
    assert scale(find("b0"), held.multipliers) == held.architecture
    raised = fit(find("b0"), Budget(multiply_adds=1e9, min_resolution=301))
    assert raised.architecture.resolution == 301


def test_a_resolution_range_alone_is_a_budget_up_to_the_end_of_the_dial() -> None:
    found = fit(find("b0"), Budget(max_resolution=128))
    assert found.architecture.resolution == 128
    assert found.binding == ("phi",)


def test_an_impossible_budget_names_the_limit_and_the_least_there_is() -> None:
    with pytest.raises(ImpossibleBudget, match=r"phi -3.*parameters at most 1,000 .*smallest network has [0-9,]+"):
        fit(find("b0"), Budget(parameters=1000))


@pytest.mark.parametrize("name", ["b0", "b7", "resnet50", "mini", "v2_s"])
@pytest.mark.parametrize("classes", [10, 1000])
def test_classes_count(name: str, classes: int) -> None:
    architecture, rounding = load(name)
    limit = cost(architecture, num_classes=classes).parameters
    found = fit(architecture, Budget(parameters=limit), rounding=rounding, num_classes=classes)
    assert found.cost == cost(found.architecture, num_classes=classes)
    assert found.cost.parameters <= limit


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("multiply-adds=1.5e9,params=8M", Budget(multiply_adds=1.5e9, parameters=8e6)),
        ("size=20MB", Budget(file_bytes=20e6)),
        ("size=20MiB", Budget(file_bytes=20 * 2**20)),
        ("activations=3k, macs=2G", Budget(activations=3e3, multiply_adds=2e9)),
        ("resolution=128..256,params=1b", Budget(min_resolution=128, max_resolution=256, parameters=1e9)),
        ("resolution=..256", Budget(max_resolution=256)),
        ("resolution=128..", Budget(min_resolution=128)),
        ("resolution=224", Budget(min_resolution=224, max_resolution=224)),
    ],
)
def test_parse_budget(text: str, expected: Budget) -> None:
    assert parse_budget(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must have the form name=value"),
        ("8M", "must have the form name=value"),
        ("flops=1G", "say multiply-adds"),
        ("latency=20ms", "latency cannot be limited yet"),
        ("memory=1GB", "memory cannot be limited yet"),
        ("colour=3", "not a limit; allowed are multiply-adds"),
        ("params=-8M", "positive number"),
        ("params=8Q", "unit of"),
        ("params=1_000.5.5", "number"),
        ("params=0", "number from 1 to 1e18"),
        ("params=nan", "positive number"),
        ("params=1e99", "number from 1 to 1e18"),
        ("params=1,params=2", "given twice"),
        ("resolution=1..2", "4 to 8192 pixels"),
        ("resolution=300..200", "over max"),
        ("resolution=..", "resolution must be pixels"),
        ("resolution=a", "resolution must be pixels"),
    ],
)
def test_a_budget_that_cannot_be_read_says_why_in_one_line(text: str, says: str) -> None:
    with pytest.raises(ImpossibleBudget, match=re.escape(says)) as caught:
        parse_budget(text)
    assert "\n" not in str(caught.value)


@given(st.text(alphabet="abcdefmprsuz=.,0123456789-+ _\n", max_size=40))
def test_parse_budget_accepts_or_refuses_and_never_breaks(text: str) -> None:
    try:
        assert parse_budget(text).limits or "resolution" in text
    except ImpossibleBudget as error:
        assert "\n" not in str(error).replace(text.strip(), "")
