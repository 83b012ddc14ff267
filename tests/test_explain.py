from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trifold.baselines import EFFICIENTNET_B0, EFFICIENTNET_MULTIPLIERS, list_models
from trifold.errors import InvalidArchitecture, InvalidInput
from trifold.explain import HAND_STEP, HAND_STEP_PIXELS, as_table, best_phi, explain
from trifold.paper import multipliers_of
from trifold.published import NOMINAL_PHI
from trifold.scaling import PAPER, RULES, Coefficients, Multipliers
from trifold.table import lines

FAMILY = list(EFFICIENTNET_MULTIPLIERS)


@given(st.floats(-3, 12))
def test_the_best_phi_of_the_formula_is_its_own(phi: float) -> None:
    fit = best_phi(PAPER.multipliers(phi))
    assert fit.phi == pytest.approx(phi, abs=1e-9)
    assert fit.residual == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", FAMILY)
def test_no_other_phi_leaves_a_smaller_error(name: str) -> None:
    multipliers = multipliers_of(name)
    fit = best_phi(multipliers)

    def error(phi: float) -> float:
        formula = PAPER.multipliers(phi)
        return math.sqrt(
            sum(
                math.log(getattr(multipliers, dimension) / getattr(formula, dimension)) ** 2
                for dimension in ("depth", "width", "resolution")
            )
            / 3
        )

    assert error(fit.phi) == pytest.approx(fit.residual)
    assert error(fit.phi - 0.01) > fit.residual
    assert error(fit.phi + 0.01) > fit.residual


def test_the_best_phi_of_a_single_dimension_reads_that_dimension_alone() -> None:
    assert best_phi(Multipliers(depth=8, width=3), RULES["depth"]).phi == pytest.approx(3)
    with pytest.raises(InvalidInput, match="alpha, beta or gamma must be above 1"):
        best_phi(Multipliers(), Coefficients(alpha=1, beta=1, gamma=1))


def test_a_single_phi_gives_b1_to_b3_and_none_gives_b4_and_above() -> None:
    fits = {name: explain(name).single_phi for name in FAMILY}
    assert [name for name in FAMILY if fits[name] is None] == FAMILY[4:]


@pytest.mark.parametrize("name", FAMILY[:4])
def test_the_nominal_phi_rounded_by_hand_gives_b0_to_b3(name: str) -> None:
    width, depth, resolution = EFFICIENTNET_MULTIPLIERS[name]
    formula = PAPER.multipliers(NOMINAL_PHI[name])
    assert round(formula.depth / HAND_STEP) * HAND_STEP == pytest.approx(depth)
    assert round(formula.width / HAND_STEP) * HAND_STEP == pytest.approx(width)
    pixels = EFFICIENTNET_B0.resolution * formula.resolution
    if name != "efficientnet_b0":
        assert round(pixels / HAND_STEP_PIXELS) * HAND_STEP_PIXELS == resolution


def test_b1_is_near_phi_one_half_and_b2_near_one() -> None:
    assert explain("b1").fit.phi == pytest.approx(0.5, abs=0.1)
    assert explain("b2").fit.phi == pytest.approx(1, abs=0.05)


def test_b3_in_numbers() -> None:
    b3 = explain("b3")
    assert [round(d.implied_phi, 2) for d in b3.dimensions] == [1.85, 1.91, 2.09]
    assert [round(d.published, 3) for d in b3.dimensions] == [1.4, 1.2, 1.339]
    assert [round(float(d.at_nominal or 0), 3) for d in b3.dimensions] == [1.44, 1.21, 1.322]
    assert (b3.nominal_phi, round(b3.fit.phi, 2), round(b3.fit.residual, 3)) == (2, 1.93, 0.016)
    assert (round(b3.multiply_adds_ratio, 2), round(b3.product, 2)) == (4.74, 3.62)


def test_b3_in_words() -> None:
    text = " ".join(explain("b3").sentences)
    for words in (
        "B3 is B0 with depth x 1.4, width x 1.2 and images of 300 instead of 224 pixels",
        "the depth answers 1.85, the width 1.91, the resolution 2.09",
        "any phi from 1.85 to 2.04 gives B3",
        "rounded by hand",
        "alpha * beta^2 * gamma^2 is 1.92, where the paper asks for about 2",
        "at phi 3 the formula gives depth 1.73, width 1.33, 341 pixels",
        "and the published network nearest to that is B4",
        "B3 does 4.74 times the multiply-adds of B0",
        "26 blocks, where 1.4 x 16 is 22.4",
        "16 channels x 1.2 = 19.2; the nearest multiple of 8 is 16, less than 0.9 of that, so it becomes 24.",
    ):
        assert words in text


def test_the_formula_at_phi_1_is_b2_and_b1_says_so() -> None:
    assert "at phi 1 the formula gives depth 1.20, width 1.10, 258 pixels, and the published network nearest to " \
           "that is B2" in " ".join(explain("b1").sentences)  # fmt: skip


def test_b4_and_above_name_the_dimension_that_runs_ahead() -> None:
    ahead = {}
    for name in FAMILY[4:]:
        sentence = next(s for s in explain(name).sentences if "runs ahead" in s)
        ahead[name] = (sentence.split()[1], sentence.split(", the ")[1].split()[0])
    assert ahead == {
        "efficientnet_b4": ("resolution", "depth"),
        "efficientnet_b5": ("resolution", "depth"),
        "efficientnet_b6": ("width", "depth"),
        "efficientnet_b7": ("width", "depth"),
        "efficientnet_b8": ("width", "depth"),
        "efficientnet_l2": ("width", "resolution"),
    }


def test_lite_says_that_its_ends_are_fixed() -> None:
    text = " ".join(explain("lite3").sentences)
    assert "those of EfficientNet-B3, its resolution not: 280 pixels, where it has 300" in text
    assert "Its ends are fixed: the stem keeps 32 channels, the head 1280" in text


def test_efficientnetv2_s_says_that_it_has_no_formula_and_b3_that_it_has_no_0_9_rule() -> None:
    assert "has no compound formula" in explain("v2_s").sentences[0]
    assert "this family's code allows it, where EfficientNet's would take 24" in explain("v2_b3").sentences[-1]


@pytest.mark.parametrize("name", ["b0", "lite0", "efficientnet_es", "v2_b0", "resnet50", "mini", "mobilenet_v1"])
def test_a_baseline_says_that_its_multipliers_are_1_by_definition(name: str) -> None:
    explanation = explain(name)
    assert "multipliers are 1 by definition" in " ".join(explanation.sentences)
    assert [d.published for d in explanation.dimensions] == [1, 1, 1]
    assert explanation.fit.phi == 0


@pytest.mark.parametrize("name", list_models())
def test_every_shipped_network_is_explained_within_110_columns(name: str) -> None:
    explanation = explain(name)
    assert explanation.name == name
    assert explanation.sentences
    assert all(sentence.endswith(".") for sentence in explanation.sentences)
    assert max(map(len, lines(as_table(explanation)))) <= 110


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(InvalidArchitecture, match="b9"):
        explain("b9")
