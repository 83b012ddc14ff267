from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from trifold.architecture import Architecture, Block
from trifold.baselines import EFFICIENTNET_B0, find, list_models
from trifold.cost import Cost, blocks_cost, convolutions, cost

DATA = Path(__file__).parent / "data"
COSTS = json.loads((DATA / "costs.json").read_text())["networks"]
LEDGER = json.loads((DATA / "b0_ledger.json").read_text())


def at(name: str) -> Architecture:
    """The network of a key of costs.json: a name, or a name@resolution."""
    name, _, resolution = name.partition("@")
    architecture = find(name)
    return replace(architecture, resolution=int(resolution)) if resolution else architecture


def multiply_adds(blocks: tuple[Block, ...], *roles: str) -> int:
    return sum(
        conv.weights * conv.size**2
        for block in blocks
        for conv in convolutions(block)
        if not roles or conv.role in roles
    )


def test_every_published_network_has_its_integers_stored() -> None:
    assert set(list_models()) - set(COSTS) == {"efficientnet_mini"}


@pytest.mark.parametrize("name", COSTS)
def test_parameters_statistics_multiply_adds_activations_and_tensors_are_exact(name: str) -> None:
    architecture, stored = at(name), COSTS[name]
    assert architecture.resolution == stored["resolution"]
    counted = cost(architecture)
    for field in ("parameters", "statistics", "multiply_adds", "activations", "tensors"):
        if field in stored:
            assert getattr(counted, field) == stored[field], field


@pytest.mark.parametrize("name", [name for name, stored in COSTS.items() if "squeeze_excite" in stored])
def test_squeeze_excite_and_depthwise_shares_are_exact(name: str) -> None:
    blocks = at(name).blocks()
    assert multiply_adds(blocks, "reduce", "excite") == COSTS[name]["squeeze_excite"]
    assert multiply_adds(blocks, "depthwise") == COSTS[name]["depthwise"]
    assert multiply_adds(blocks) == COSTS[name]["multiply_adds"]


@pytest.mark.parametrize("name", [name for name, stored in COSTS.items() if "parameters_without_classifier" in stored])
@pytest.mark.parametrize("num_classes", [0, 1, 10, 1001])
def test_another_number_of_classes_changes_the_classifier_alone(name: str, num_classes: int) -> None:
    architecture, stored = at(name), COSTS[name]
    counted = cost(architecture, num_classes=num_classes)
    head = architecture.head.channels
    assert counted.parameters == stored["parameters_without_classifier"] + head * num_classes + num_classes
    assert counted.multiply_adds == stored["multiply_adds"] + head * (num_classes - 1000)
    assert counted.activations == stored["activations"] + num_classes - 1000
    assert counted.statistics == stored["statistics"]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("efficientnet_es", 5_439_673), ("efficientnet_em", 6_900_777), ("efficientnet_el", 10_591_249)],
)
def test_edgetpu_networks_of_1001_classes_are_exact(name: str, parameters: int) -> None:
    assert cost(find(name), num_classes=1001).parameters == parameters


def test_the_mini_baseline_is_exact() -> None:
    counted = cost(find("mini"))
    assert (counted.parameters, counted.multiply_adds) == (363_010, 3_389_856)


def test_b0_has_the_published_ledger_block_by_block() -> None:
    blocks = EFFICIENTNET_B0.blocks()
    assert len(blocks) == len(LEDGER)
    for block, row in zip(blocks, LEDGER, strict=True):
        counted = blocks_cost([block])
        assert (counted.parameters, counted.multiply_adds) == (row["parameters"], row["multiply_adds"])
        assert (block.squeeze_channels, block.shortcut == "identity") == (row["squeeze"], row["skip"])
        if block.operator == "mbconv":
            assert [block.in_channels, block.mid_channels, block.out_channels] == row["channels"]
            assert (block.kernel_size, block.stride) == (row["kernel_size"], row["stride"])
            assert [block.in_size, block.out_size] == row["sizes"]
            assert (block.mid_channels // block.in_channels) == int(row["operator"].removeprefix("MBConv"))


def test_the_ledger_sums_to_the_network() -> None:
    assert sum(row["parameters"] for row in LEDGER) == COSTS["efficientnet_b0"]["parameters"]
    assert sum(row["multiply_adds"] for row in LEDGER) == COSTS["efficientnet_b0"]["multiply_adds"]
    blocks = EFFICIENTNET_B0.blocks()
    parts = [blocks_cost([block]) for block in blocks]
    whole = cost(EFFICIENTNET_B0)
    assert whole == blocks_cost(blocks)
    assert whole.tensors == sum(part.tensors for part in parts)
    assert blocks_cost([]) == Cost(parameters=0, statistics=0, multiply_adds=0, activations=0, tensors=0)


def test_nine_of_the_blocks_of_b0_have_a_skip() -> None:
    middle = [block for block in EFFICIENTNET_B0.blocks() if block.operator == "mbconv"]
    assert [i for i, block in enumerate(middle) if block.shortcut == "identity"] == [2, 4, 6, 7, 9, 10, 12, 13, 14]


def test_another_number_of_image_channels_changes_the_stem_alone() -> None:
    three, one = cost(EFFICIENTNET_B0), cost(EFFICIENTNET_B0, in_channels=1)
    assert three.parameters - one.parameters == 2 * 32 * 9
    assert three.multiply_adds - one.multiply_adds == 2 * 32 * 9 * 112**2
    assert three.activations == one.activations


@pytest.mark.parametrize("number", range(6))
def test_pycls_counts_the_same_and_adds_biases(data_dir: Path, number: int) -> None:
    rows = json.loads((data_dir / "tables" / "pycls" / "model_complexity.json").read_text())
    row = rows[f"configs/dds_baselines/effnet/EN-B{number}_dds_8gpu.yaml"]
    architecture = find(f"b{number}")
    counted = cost(architecture)
    biases = sum(conv.out_channels for block in architecture.blocks() for conv in convolutions(block) if conv.bias)
    assert row == {
        "params": counted.parameters, "acts": counted.activations, "flops": counted.multiply_adds + biases
    }  # fmt: skip
    assert row["flops"] == COSTS[architecture.name]["pycls_flops"]


def test_pycls_counts_resnet50_the_same_and_adds_the_max_pool(data_dir: Path) -> None:
    rows = json.loads((data_dir / "tables" / "pycls" / "model_complexity.json").read_text())
    row, counted = rows["configs/dds_baselines/resnet/R-50-1x64d_dds_8gpu.yaml"], cost(find("resnet50"))
    assert row["params"] == counted.parameters
    assert row["flops"] == counted.multiply_adds + 1000
    assert row["acts"] == counted.activations + 64 * 56 * 56
