from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import strategies
from trifold import published
from trifold.architecture import Architecture
from trifold.baselines import EFFICIENTNET_B0, EFFICIENTNET_MULTIPLIERS, FAMILIES, Family, find
from trifold.cost import cost
from trifold.errors import InvalidArchitecture, InvalidInput
from trifold.scaling import (
    PAPER,
    RULES,
    Coefficients,
    Multipliers,
    Rounding,
    family,
    round_channels,
    round_layers,
    round_resolution,
    scale,
)


@given(strategies.architectures(), strategies.roundings())
def test_scaling_by_one_changes_nothing(architecture: Architecture, rounding: Rounding) -> None:
    assert scale(architecture, Multipliers(), rounding) == architecture


@pytest.mark.parametrize("kin", FAMILIES, ids=lambda kin: kin.baseline.name)
def test_phi_0_is_the_baseline(kin: Family) -> None:
    assert scale(kin.baseline, PAPER.multipliers(0), kin.rounding) == kin.baseline


@given(
    strategies.architectures(),
    strategies.coefficients(),
    st.sampled_from((0.0, 0.9)),
    st.floats(-3, 3),
    st.floats(0, 2),
)
def test_a_larger_phi_never_gives_fewer_layers_channels_or_pixels(
    architecture: Architecture, direction: Coefficients, keep_ratio: float, phi: float, more: float
) -> None:
    rounding = Rounding(keep_ratio=keep_ratio)
    small, large = (scale(architecture, direction.multipliers(p), rounding) for p in (phi, phi + more))
    assert small.resolution <= large.resolution
    assert small.stem.channels <= large.stem.channels
    assert small.head.channels <= large.head.channels
    for before, after in zip(small.stages, large.stages, strict=True):
        assert before.channels <= after.channels
        assert before.layers <= after.layers


@pytest.mark.parametrize("kin", FAMILIES, ids=lambda kin: kin.baseline.name)
def test_a_larger_phi_never_costs_less(kin: Family) -> None:
    phis = [step / 10 for step in range(-30, 31)]
    costs = [member.cost for member in family(kin.baseline, phis, PAPER, kin.rounding)]
    for before, after in pairwise(costs):
        assert before.multiply_adds <= after.multiply_adds
        assert before.parameters <= after.parameters
        assert before.activations <= after.activations


def test_the_paper_s_product_is_1_92_and_not_2() -> None:
    assert PAPER.growth == pytest.approx(1.92027, abs=1e-9)


@pytest.mark.parametrize(
    ("phi", "depth", "width", "pixels"),
    [
        (0.5, 1.095, 1.049, 240.2),
        (1, 1.2, 1.1, 257.6),
        (2, 1.44, 1.21, 296.2),
        (3, 1.728, 1.331, 340.7),
        (4, 2.074, 1.464, 391.8),
        (5, 2.488, 1.611, 450.5),
        (6, 2.986, 1.772, 518.1),
        (7, 3.583, 1.949, 595.8),
        (8, 4.300, 2.144, 685.2),
    ],
)
def test_the_formula_gives_these_multipliers(phi: float, depth: float, width: float, pixels: float) -> None:
    multipliers = PAPER.multipliers(phi)
    assert (round(multipliers.depth, 3), round(multipliers.width, 3)) == (depth, width)
    assert round(224 * multipliers.resolution, 1) == pixels


def test_every_rule_but_the_paper_s_doubles_the_multiply_adds() -> None:
    assert {name for name, rule in RULES.items() if not math.isclose(rule.growth, 2)} == {"compound"}


def test_single_rules_change_one_dimension() -> None:
    assert RULES["depth"].multipliers(2) == Multipliers(depth=4)
    assert RULES["width"].multipliers(2).width == pytest.approx(2)
    assert RULES["resolution"].multipliers(2).resolution == pytest.approx(2)


def test_the_fast_rule_gives_width_most_of_the_growth() -> None:
    at_16 = RULES["fast"].multipliers(4)
    assert at_16.depth == pytest.approx(16**0.1)
    assert at_16.width == pytest.approx(16**0.4)
    assert at_16.resolution == pytest.approx(16**0.05)


def slope(xs: list[float], ys: list[float]) -> float:
    """Of the least-squares line through the origin."""
    return sum(x * y for x, y in zip(xs, ys, strict=True)) / sum(x * x for x in xs)


def test_the_tiny_rule_is_the_least_squares_fit_of_the_tinynets() -> None:
    nets = [(net.depth, net.width, net.resolution / EFFICIENTNET_B0.resolution) for net in published.TINYNETS]
    xs = [math.log2(d * w**2 * r**2) for d, w, r in nets]
    slopes = (
        slope(xs, [math.log2(d) for d, _, _ in nets]),
        slope(xs, [2 * math.log2(w) for _, w, _ in nets]),
        slope(xs, [2 * math.log2(r) for _, _, r in nets]),
    )
    assert sum(slopes) == pytest.approx(1)
    tiny = RULES["tiny"]
    assert tiny.alpha == pytest.approx(2 ** slopes[0], abs=5e-4)
    assert tiny.beta == pytest.approx(2 ** (slopes[1] / 2), abs=5e-4)
    assert tiny.gamma == pytest.approx(2 ** (slopes[2] / 2), abs=5e-4)


def published_channels(rounding: Rounding) -> dict[tuple[str, int], int]:
    """Rounded channels of every row, stem and head of B0 to B8 and L2, by (network, channels of B0)."""
    base = EFFICIENTNET_B0
    rows = {base.stem.channels, base.head.channels, *(stage.channels for stage in base.stages)}
    return {
        (name, channels): round_channels(channels, width, rounding)
        for name, (width, _, _) in EFFICIENTNET_MULTIPLIERS.items()
        for channels in rows
    }


def test_the_nine_tenths_rule_fires_once_in_the_published_family() -> None:
    with_rule, without = published_channels(Rounding()), published_channels(Rounding(keep_ratio=0))
    fired = {key: (without[key], with_rule[key]) for key in with_rule if with_rule[key] != without[key]}
    assert fired == {("efficientnet_b3", 16): (16, 24)}


def test_efficientnetv2_b3_has_no_nine_tenths_rule() -> None:
    b3 = find("efficientnetv2_b3")
    assert [stage.channels for stage in b3.stages] == [16, 40, 56, 112, 136, 232]
    assert (b3.stem.channels, b3.head.channels) == (40, 1536)
    b2 = find("efficientnetv2_b2")
    assert [stage.channels for stage in b2.stages] == [16, 32, 56, 104, 120, 208]
    assert b2.head.channels == 1408


@pytest.mark.parametrize(
    ("channels", "width", "rounding", "rounded"),
    [
        (32, 1.1, Rounding(), 32),
        (40, 1.1, Rounding(), 48),
        (16, 1.2, Rounding(), 24),
        (16, 1.2, Rounding(keep_ratio=0), 16),
        (32, 0.1, Rounding(), 8),
        (12, 1, Rounding(), 12),
        (12, 1.5, Rounding(), 20),
        (7, 3, Rounding(), 21),
    ],
)
def test_channels_become_the_nearest_multiple(channels: int, width: float, rounding: Rounding, rounded: int) -> None:
    assert round_channels(channels, width, rounding) == rounded


@pytest.mark.parametrize(
    ("layers", "depth", "rounding", "rounded"),
    [
        (1, 1.1, Rounding(), 2),
        (10, 1.1, Rounding(), 11),
        (3, 1.4, Rounding(), 5),
        (3, 1.4, Rounding(depth="nearest"), 4),
        (1, 0.1, Rounding(depth="nearest"), 1),
        (1, 0.1, Rounding(), 1),
    ],
)
def test_layers_are_rounded_up_or_to_nearest(layers: int, depth: float, rounding: Rounding, rounded: int) -> None:
    assert round_layers(layers, depth, rounding) == rounded


@pytest.mark.parametrize(
    ("resolution", "factor", "rounded"), [(224, 1.15, 256), (224, 1.3, 292), (225, 1, 225), (4, 0.1, 4), (33, 0.1, 4)]
)
def test_pixels_become_a_multiple_of_the_step_unless_the_baseline_s_are_not(
    resolution: int, factor: float, rounded: int
) -> None:
    assert round_resolution(resolution, factor, Rounding()) == rounded


def test_lite_keeps_its_ends() -> None:
    lite4 = find("lite4")
    assert (lite4.stem.channels, lite4.head.channels) == (32, 1280)
    assert [stage.layers for stage in lite4.stages] == [1, 4, 4, 6, 6, 8, 1]
    assert [stage.layers for stage in find("lite3").stages] == [1, 3, 3, 5, 5, 6, 1]


def test_scaling_beyond_what_a_description_holds_names_the_row() -> None:
    wide = replace(EFFICIENTNET_B0, stages=(replace(EFFICIENTNET_B0.stages[0], channels=60_000),))
    with pytest.raises(InvalidArchitecture, match="row 1: scaling gives channels 120,000; at most 65,536 are allowed"):
        scale(wide, Multipliers(width=2))


@pytest.mark.parametrize("phi", [-3.1, 12.1, math.nan, True, "1"])
def test_a_phi_that_is_no_number_from_minus_3_to_12_is_refused(phi: float) -> None:
    with pytest.raises(InvalidInput, match="phi must be a number from -3 to 12"):
        PAPER.multipliers(phi)


def test_a_family_holds_its_members_costs() -> None:
    members = family(EFFICIENTNET_B0, [0, 1], num_classes=10)
    assert [member.phi for member in members] == [0, 1]
    assert members[1].architecture == scale(EFFICIENTNET_B0, PAPER.multipliers(1))
    assert members[1].cost == cost(members[1].architecture, num_classes=10)
