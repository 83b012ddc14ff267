"""The search space as data, and the reward: sizes, extremes and networks counted out, and what is refused."""

from __future__ import annotations

import itertools
import json
import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trifold.architecture import Architecture, Head, Stage, Stem
from trifold.baselines import EFFICIENTNET_B0, MOBILENET_V2
from trifold.cost import cost
from trifold.errors import InvalidInput
from trifold.network import build
from trifold.search.reward import Limit, Target, broken, hard, reward
from trifold.search.space import (
    MNASNET,
    Decision,
    Space,
    Tokens,
    around,
    extreme,
    read,
    size,
    space_from_dict,
    space_to_dict,
    span,
    to_toml,
)

SMALL = Architecture(
    name="small",
    resolution=16,
    stem=Stem(channels=8, stride=1),
    stages=(
        Stage(operator="mbconv", channels=8, layers=1),
        Stage(operator="mbconv", channels=16, layers=2, stride=2, expand_ratio=6, se_ratio=0.25),
    ),
    head=Head(channels=32),
)

FEW: dict[str, tuple[Any, ...]] = {
    "operator": ("conv", "mbconv"),
    "skip": (True, False),
    "expand_ratio": (3, 6),
    "width": (1, 1.5),
    "layers": (-1, 0),
}


def multiply_adds(architecture: Architecture) -> float:
    return cost(architecture, num_classes=10).multiply_adds


def everything(space: Space) -> list[Tokens]:
    return list(itertools.product(*map(range, space.sizes)))


def test_the_size_of_mnasnets_space_is_that_of_its_paper() -> None:
    paper = {**MNASNET, "kernel_size": (3, 5), "operator": ("separable", "mbconv", "conv")}
    one = around(MOBILENET_V2, paper)
    assert math.prod(len(options) for options in paper.values()) == 432
    assert size(one).choices == 432**7  # seven stages; 1807.11626 §4.1 counts five of 432


@pytest.mark.parametrize("resolutions", [(), (12, 16, 20)])
def test_size_and_span_are_those_of_the_space_counted_out(resolutions: tuple[int, ...]) -> None:
    space = around(SMALL, FEW, resolutions=resolutions)
    networks = {space.architecture(tokens) for tokens in everything(space)}
    assert size(space) == (len(everything(space)), len(networks))
    assert size(space).networks < size(space).choices
    spent = [multiply_adds(one) for one in networks]
    assert span(space, multiply_adds) == (min(spent), max(spent))
    assert multiply_adds(space.architecture(extreme(space, multiply_adds, largest=True))) == max(spent)


@pytest.mark.parametrize("operator", ["basic", "bottleneck", "fused_mbconv", "separable"])
@pytest.mark.parametrize("measure", ["parameters", "activations", "multiply_adds"])
def test_the_span_holds_for_every_operator_and_measure(operator: str, measure: str) -> None:
    options = {**FEW, "operator": (operator, "mbconv"), "expand_ratio": (1,) if operator == "basic" else (1, 4)}
    space = around(SMALL, options)
    networks = [space.architecture(tokens) for tokens in everything(space)]

    def measured(one: Architecture) -> float:
        return float(getattr(cost(one, num_classes=10), measure))

    assert span(space, measured) == (min(map(measured, networks)), max(map(measured, networks)))


def test_choices_become_the_baselines_rows() -> None:
    space = around(EFFICIENTNET_B0, {"width": (0.75, 1, 1.25), "layers": (-1, 0, 1), "kernel_size": (3, 7)})
    same = tuple({"width": 1, "layers": 1, "kernel_size": 0}[one.field] for one in space.decisions)
    rows = space.architecture(same).stages
    assert [row.channels for row in rows] == [row.channels for row in EFFICIENTNET_B0.stages]
    assert [row.layers for row in rows] == [row.layers for row in EFFICIENTNET_B0.stages]
    assert {row.kernel_size for row in rows} == {3}
    least = space.architecture(extreme(space, multiply_adds, largest=False)).stages
    assert [row.layers for row in least] == [1, 1, 1, 2, 2, 3, 1]  # never none
    assert [row.channels for row in least] == [16, 24, 32, 64, 88, 144, 240]  # 12, 18: not under 0.9 of them


def test_choices_without_effect_give_equal_networks() -> None:
    space = around(SMALL, {"operator": ("conv", "mbconv"), "expand_ratio": (3, 6), "skip": (True, False)})
    names = [one.name for one in space.decisions]
    base = dict.fromkeys(names, 0)

    def network(**changed: int) -> Architecture:
        chosen = base | {name.replace("_", " ", 2): token for name, token in changed.items()}
        return space.architecture(tuple(chosen[name] for name in names))

    assert names[:2] == ["stage 1 operator", "stage 1 skip"]
    assert network() == space.architecture(tuple(int(name == "stage 1 expand_ratio") for name in names))
    # Stage 1 keeps its shape, so its shortcut matters; a single strided block has none to lose.
    assert network() != space.architecture(tuple(int(name == "stage 1 skip") for name in names))
    single = around(SMALL, {"layers": (-1,), "skip": (True, False)})
    assert single.architecture((0, 0, 0, 0)) == single.architecture((0, 0, 1, 0))


@given(st.data())
def test_every_candidate_is_a_network_that_can_be_built(data: st.DataObject) -> None:
    space = around(SMALL, {**MNASNET, "kernel_size": (3, 5)}, resolutions=(8, 16))
    tokens = tuple(data.draw(st.integers(0, n - 1)) for n in space.sizes)
    one = space.architecture(tokens)
    counted = cost(one, num_classes=10)
    low, high = span(space, multiply_adds)
    assert low <= counted.multiply_adds <= high
    network = build(one, num_classes=10)
    assert sum(p.numel() for p in network.parameters()) == counted.parameters


@given(st.lists(st.integers(-2, 4), min_size=0, max_size=12))
def test_tokens_out_of_range_are_refused(tokens: list[int]) -> None:
    space = around(SMALL, FEW)
    inside = len(tokens) == len(space.sizes) and all(0 <= t < n for t, n in zip(tokens, space.sizes, strict=True))
    if inside:
        space.architecture(tuple(tokens))
        return
    with pytest.raises(InvalidInput, match="indices below") as caught:
        space.architecture(tuple(tokens))
    assert "\n" not in str(caught.value)


def test_a_space_survives_toml_and_plain_values(tmp_path: Path) -> None:
    space = around(SMALL, FEW, stages={2: {"kernel_size": (3, 5, 7)}}, resolutions=(8, 16))
    path = tmp_path / "space.toml"
    path.write_text(to_toml(space))
    assert read(path, SMALL) == space
    assert space_from_dict(json.loads(json.dumps(space_to_dict(space)))) == space


def test_a_stage_of_its_own_replaces_only_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text("[every_stage]\nwidth = [1, 2]\nlayers = [0, 1]\n[stage.2]\nwidth = [3]\n")
    assert read(path, SMALL).decisions == (
        Decision(1, "width", (1, 2)),
        Decision(1, "layers", (0, 1)),
        Decision(2, "width", (3,)),
        Decision(2, "layers", (0, 1)),
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "nothing to choose"),
        ("[every_stage]\n", "nothing to choose"),
        ("every_stage = 3", "every_stage must be a table of fields, got 3"),
        ("[every]\nwidth = [1]", "unknown field 'every'; allowed are every_stage, stage, resolution"),
        ("[every_stage]\ncolour = [1]", "field must be operator or kernel_size .* got 'colour'"),
        ("[every_stage]\nwidth = 1", "every_stage.width must be a list of options, got 1"),
        ("[every_stage]\nwidth = []", "stage 1 width must have at least one option"),
        ("[every_stage]\nwidth = [1, 1.0]", "stage 1 width must have each option once"),
        ("[every_stage]\nwidth = [0]", "stage 1 width must be numbers from 0.01 to 100, got 0"),
        ("[every_stage]\nwidth = ['wide']", "stage 1 width must be numbers from 0.01 to 100, got 'wide'"),
        ("[every_stage]\nlayers = [0.5]", "stage 1 layers must be whole numbers from -100 to 100, got 0.5"),
        ("[every_stage]\nkernel_size = [4]", "stage 1: kernel_size must be an odd whole number"),
        ("[every_stage]\noperator = ['dense']", "stage 1: operator must be mbconv or .* got 'dense'"),
        ("[every_stage]\nse_ratio = [true]", "stage 1: se_ratio must be a number"),
        ("[every_stage]\nskip = [0]", "stage 1: skip must be true or false"),
        ("[stage.3]\nwidth = [1]", "stage must be from 1 to 2, the baseline's stages, got 3"),
        ("[stage.first]\nwidth = [1]", "stage must be followed by a number, as in .stage.2., got 'first'"),
        ("resolution = [2]", "resolution must be a whole number from 4"),
        ("resolution = [16.0]", "resolution must be a whole number from 4"),
        ("resolution = [[16]]", "resolution must be a list of options"),
        ("width = [", "not valid TOML"),
        ("[every_stage]\nwidth = " + str([1 + i / 1000 for i in range(500)]) + "\nlayers = " + str(list(range(99)))
         + "\nexpand_ratio = " + str(list(range(1, 60))), "at most 200,000 combinations"),
    ],
)  # fmt: skip
def test_a_space_that_makes_no_sense_is_one_line_that_names_the_file(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=f"space.toml: .*{complaint}") as caught:
        read(path, SMALL)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_text_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        read(tmp_path / "none.toml", SMALL)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="not UTF-8"):
        read(tmp_path / "bytes.toml", SMALL)


def test_decisions_stand_in_order_and_once() -> None:
    one, other = Decision(1, "width", (1, 2)), Decision(2, "width", (1, 2))
    with pytest.raises(InvalidInput, match="in the order of their stages"):
        Space(baseline=SMALL, decisions=(other, one))
    with pytest.raises(InvalidInput, match="stage 1 width must be decided once"):
        Space(baseline=SMALL, decisions=(one, one))


def test_a_hundred_thousand_candidates_are_made_and_costed_without_torch() -> None:
    program = """
import random, sys, time
from trifold.baselines import MOBILENET_V2
from trifold.cost import cost
from trifold.search.reward import Limit, broken
from trifold.search.space import around
space, draw, kept = around(MOBILENET_V2), random.Random(0), 0
sizes = space.sizes
for _ in range(2000):
    spent = cost(space.architecture(tuple(map(draw.randrange, sizes))))
    kept += not broken({"multiply_adds": spent.multiply_adds}, [Limit(measure="multiply_adds", most=4e8)])
print(0 < kept < 2000, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_the_reward_is_the_papers() -> None:
    target = Target(measure="latency", value=75)
    assert reward(0.75, {"latency": 75}, [target]) == pytest.approx(0.75)
    # Twice the latency is worth about 5 % more accuracy (1807.11626 §3).
    assert reward(0.75 * 1.05, {"latency": 150}, [target]) == pytest.approx(0.75, rel=2e-3)
    strict = hard("latency", 75)
    assert reward(0.75, {"latency": 10}, [strict]) == pytest.approx(0.75)
    assert reward(0.75, {"latency": 150}, [strict]) == pytest.approx(0.375)
    both = [
        Target(measure="step", value=2, below=-0.07, above=-0.07),
        Target(measure="parameters", value=4, below=-0.05, above=-0.05),
    ]
    assert reward(0.8, {"step": 4, "parameters": 2}, both) == pytest.approx(0.8 * 2**-0.07 * 0.5**-0.05)
    assert reward(0.8, {}, []) == 0.8


@given(st.floats(0, 1), st.floats(1e-3, 1e12), st.floats(1e-3, 1e12))
def test_the_reward_never_grows_with_cost(accuracy: float, cheap: float, dear: float) -> None:
    cheap, dear = sorted((cheap, dear))
    for target in (Target(measure="m", value=1e3), hard("m", 1e3)):
        assert reward(accuracy, {"m": cheap}, [target]) >= reward(accuracy, {"m": dear}, [target])


@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, True])
def test_targets_limits_and_costs_are_above_zero(value: float) -> None:
    for make in (lambda: Target(measure="m", value=value), lambda: Limit(measure="m", most=value)):
        with pytest.raises(InvalidInput, match="m must be a number above 0"):
            make()
    with pytest.raises(InvalidInput, match="cost m must be a number above 0"):
        reward(0.5, {"m": value}, [Target(measure="m", value=1)])


@pytest.mark.parametrize("accuracy", [-0.1, math.inf, math.nan])
def test_an_accuracy_is_a_number(accuracy: float) -> None:
    with pytest.raises(InvalidInput, match="accuracy must be"):
        reward(accuracy, {}, [])


@pytest.mark.parametrize("weight", [0.07, -11, math.nan])
def test_a_weight_that_rewards_cost_is_refused(weight: float) -> None:
    with pytest.raises(InvalidInput, match="weight above must be a number from -10 to 0"):
        Target(measure="m", value=1, above=weight)


def test_limits_name_what_breaks_them() -> None:
    limits = [Limit(measure="multiply_adds", most=10), Limit(measure="parameters", most=10)]
    assert broken({"multiply_adds": 10, "parameters": 11}, limits) == ("parameters",)
    assert broken({"multiply_adds": 10, "parameters": 10}, limits) == ()


def test_a_random_candidate_is_rarely_the_baseline() -> None:
    space, draw = around(MOBILENET_V2), random.Random(1)
    found = {space.architecture(tuple(map(draw.randrange, space.sizes))) for _ in range(200)}
    assert len(found) == 200
    assert MOBILENET_V2 not in found
