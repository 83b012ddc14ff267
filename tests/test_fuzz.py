"""Whatever the description accepts must build, run on the meta device and agree with the cost exactly."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests import strategies
from trifold.architecture import Architecture, Head, Stage, Stem, from_dict, to_toml
from trifold.cost import Cost, cost
from trifold.errors import InvalidInput
from trifold.network import build
from trifold.scaling import Coefficients, Multipliers, Rounding, scale


def observed(architecture: Architecture, *, num_classes: int, in_channels: int) -> Cost:
    """What the built network is seen to have and to do on one image of the architecture's resolution."""
    with torch.device("meta"):
        network = build(architecture, num_classes=num_classes, in_channels=in_channels).eval()
    work = {"multiply_adds": 0, "activations": 0}

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d | nn.Linear)
        work["activations"] += output.numel()
        work["multiply_adds"] += output.numel() * module.weight[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    size = architecture.resolution
    output = network(torch.empty(1, in_channels, size, size, device="meta"))
    assert output.shape == (1, num_classes or network.num_features)
    saved = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    parameters = sum(value.numel() for value in network.parameters())
    return Cost(
        parameters=parameters,
        statistics=sum(value.numel() for value in saved.values()) - parameters,
        tensors=len(saved),
        **work,
    )


@given(strategies.architectures(), st.integers(0, 12), st.integers(1, 5))
def test_what_is_described_builds_runs_and_costs_what_was_counted(
    architecture: Architecture, num_classes: int, in_channels: int
) -> None:
    seen = observed(architecture, num_classes=num_classes, in_channels=in_channels)
    assert seen == cost(architecture, num_classes=num_classes, in_channels=in_channels)


SCALARS = st.sampled_from((1, 2, 3, 4, 5, 8, 0.25, 1.5, 6, -1, 0, True, "silu", "basic", "conv", "relu", 10**9))


@given(strategies.architectures(max_stages=3), st.data())
def test_a_toml_file_with_a_value_changed_is_refused_or_builds_and_costs_what_was_counted(
    architecture: Architecture, data: st.DataObject
) -> None:
    tree = tomllib.loads(to_toml(architecture))
    table = data.draw(st.sampled_from([tree["stem"], tree["head"], *tree["stages"]]))
    table[data.draw(st.sampled_from([*sorted(table), "layers", "stride", "kernel_size"]))] = data.draw(SCALARS)
    try:
        changed = from_dict(tree, source="fuzz.toml")
    except InvalidInput as error:
        assert str(error).startswith("fuzz.toml: ")
        return
    assert observed(changed, num_classes=2, in_channels=3) == cost(changed, num_classes=2)


@given(strategies.architectures(max_stages=3), strategies.multipliers(), strategies.roundings())
def test_what_scale_returns_builds_runs_and_costs_what_was_counted(
    architecture: Architecture, multipliers: Multipliers, rounding: Rounding
) -> None:
    scaled = scale(architecture, multipliers, rounding)
    assert observed(scaled, num_classes=3, in_channels=3) == cost(scaled, num_classes=3)


@given(strategies.architectures(), strategies.coefficients(), st.floats(-3, 12), strategies.roundings())
def test_scale_gives_a_valid_description_or_refuses_in_one_line(
    architecture: Architecture, coefficients: Coefficients, phi: float, rounding: Rounding
) -> None:
    try:
        scaled = scale(architecture, coefficients.multipliers(phi), rounding)
    except InvalidInput as error:
        assert len(str(error).splitlines()) == 1
        return
    assert replace(scaled) == scaled  # every rule of the description is checked again
    small, large = (architecture, scaled) if phi >= 0 else (scaled, architecture)
    assert small.resolution <= large.resolution
    assert small.stem.channels <= large.stem.channels
    assert small.head.channels <= large.head.channels
    for one, other in zip(small.stages, large.stages, strict=True):
        assert one.channels <= other.channels
        assert one.layers <= other.layers


EXTREMES = {
    "widest": Architecture(
        name="widest",
        resolution=4,
        stem=Stem(channels=65_536, kernel_size=31),
        stages=(Stage(operator="fused_mbconv", channels=65_536, kernel_size=31, expand_ratio=64, se_ratio=4),),
        head=Head(channels=65_536),
    ),
    "deepest": Architecture(
        name="deepest",
        resolution=8,
        stem=Stem(channels=1),
        stages=(Stage(operator="conv", channels=1, layers=1000),),
        head=Head(),
    ),
    "longest": Architecture(
        name="longest",
        resolution=4,
        stem=Stem(channels=2),
        stages=(Stage(operator="mbconv", channels=2, stride=2, expand_ratio=0.01, se_ratio=0.01),) * 100,
        head=Head(),
    ),
    "largest image": Architecture(
        name="largest image",
        resolution=8192,
        stem=Stem(channels=8, stride=1, max_pool=True),
        stages=(Stage(operator="bottleneck", channels=8, expand_ratio=64, expand_of="output"),),
        head=Head(),
    ),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_the_largest_descriptions_allowed_build_and_cost_what_was_counted(name: str) -> None:
    seen = observed(EXTREMES[name], num_classes=7, in_channels=3)
    assert seen == cost(EXTREMES[name], num_classes=7)
