from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from trifold.architecture import from_dict, to_dict, to_toml
from trifold.baselines import ALIASES, EFFICIENTNET_MULTIPLIERS, FAMILIES, family_of, find, list_models, load
from trifold.errors import InvalidArchitecture
from trifold.published import DROPOUT
from trifold.scaling import Rounding

SHAPES = json.loads((Path(__file__).parent / "data" / "shapes.json").read_text())


@pytest.mark.parametrize("row", SHAPES, ids=lambda row: row["name"])
def test_widths_repeats_stem_and_head_are_the_published_ones(row: dict[str, object]) -> None:
    network = find(str(row["name"]))
    assert EFFICIENTNET_MULTIPLIERS[network.name] == (row["width"], row["depth"], row["resolution"])
    assert [stage.channels for stage in network.stages] == row["channels"]
    assert [stage.layers for stage in network.stages] == row["layers"]
    assert (network.stem.channels, network.head.channels) == (row["stem"], row["head"])
    assert (network.num_blocks, network.resolution) == (row["blocks"], row["resolution"])
    assert DROPOUT[network.name] == row["dropout"]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("b0", [224, 112, 56, 28, 14, 7]),
        ("b1", [240, 120, 60, 30, 15, 8]),
        ("b2", [260, 130, 65, 33, 17, 9]),
        ("b3", [300, 150, 75, 38, 19, 10]),
        ("b4", [380, 190, 95, 48, 24, 12]),
        ("b5", [456, 228, 114, 57, 29, 15]),
        ("b6", [528, 264, 132, 66, 33, 17]),
        ("b7", [600, 300, 150, 75, 38, 19]),
        ("b8", [672, 336, 168, 84, 42, 21]),
        ("l2", [800, 400, 200, 100, 50, 25]),
    ],
)
def test_sizes_after_each_halving_are_the_published_ones(name: str, sizes: list[int]) -> None:
    network = find(name)
    halved = [block.out_size for block in network.blocks() if block.stride == 2]
    assert [network.resolution, *halved] == sizes


def test_l2_at_475_pixels_rounds_its_sizes_up() -> None:
    blocks = replace(find("l2"), resolution=475).blocks()
    assert [block.out_size for block in blocks if block.stride == 2] == [238, 119, 60, 30, 15]


@pytest.mark.parametrize("name", list_models())
def test_every_shipped_network_goes_through_toml_and_json_and_back(name: str) -> None:
    network = find(name)
    assert from_dict(tomllib.loads(to_toml(network))) == network
    assert from_dict(json.loads(json.dumps(to_dict(network)))) == network
    assert network.name == name


def test_a_shipped_network_written_to_a_file_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "b3.toml").write_text(to_toml(find("b3")))
    assert load(str(tmp_path / "b3.toml")) == (find("b3"), Rounding())


def test_every_family_holds_its_baseline_unchanged() -> None:
    for family in FAMILIES:
        assert find(family.baseline.name) == family.baseline


def test_every_alias_names_a_shipped_network() -> None:
    assert set(ALIASES.values()) <= set(list_models())
    assert not set(ALIASES) & set(list_models())


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("b0", "efficientnet_b0"),
        ("EfficientNet-B3", "efficientnet_b3"),
        ("tf_efficientnetv2_s", "efficientnetv2_s"),
        ("efficientnet_v2_s", "efficientnetv2_s"),
        ("mobilenetv2_100", "mobilenet_v2"),
        ("semnasnet_100", "mnasnet_a1"),
        ("lite0", "efficientnet_lite0"),
    ],
)
def test_short_names_and_other_spellings_are_understood(written: str, name: str) -> None:
    assert find(written).name == name


def test_an_unknown_name_gets_the_nearest_ones() -> None:
    with pytest.raises(InvalidArchitecture, match="did you mean efficientnet_b"):
        family_of("efficientnet_b9")


def test_list_models_takes_a_shell_pattern() -> None:
    assert list_models("resnet*") == ("resnet18", "resnet50")
    assert list_models("nothing") == ()
