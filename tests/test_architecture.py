from __future__ import annotations

import json
import tomllib
from dataclasses import FrozenInstanceError, replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import strategies
from trifold.architecture import Architecture, Head, Stage, Stem, from_dict, read, to_dict, to_toml
from trifold.baselines import find, list_models
from trifold.cost import cost
from trifold.errors import InvalidArchitecture

GOOD = """
name = "mine"
resolution = 64
stem = { channels = 16 }
stages = [
  { operator = "mbconv", channels = 24, layers = 2, kernel_size = 5, stride = 2, expand_ratio = 6, se_ratio = 0.25 },
  { operator = "basic", channels = 32, stride = 2, activation = "relu" },
]
head = { channels = 128 }
"""


def test_a_toml_file_of_one_row_a_stage_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    assert read(path) == Architecture(
        name="mine",
        resolution=64,
        stem=Stem(channels=16),
        stages=(
            Stage(operator="mbconv", channels=24, layers=2, kernel_size=5, stride=2, expand_ratio=6, se_ratio=0.25),
            Stage(operator="basic", channels=32, stride=2, activation="relu"),
        ),
        head=Head(channels=128),
    )


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"mbconv"', '"mbcomv"', "stages row 1: operator must be mbconv or fused_mbconv or"),
        ("channels = 24", "channels = -24", "stages row 1: channels must be a whole number from 1 to 65536, got -24"),
        ("channels = 24", "channels = 24.0", "stages row 1: channels must be a whole number"),
        ("channels = 24", "channels = true", "stages row 1: channels must be a whole number"),
        ("channels = 24, ", "", "stages row 1: field channels is missing"),
        ("kernel_size = 5", "kernel_size = 4", "kernel_size must be an odd whole number from 1 to 31, got 4"),
        ("layers = 2", "layers = 1000000000", "layers must be a whole number from 1 to 1000, got 1000000000"),
        ("stride = 2, expand", "stride = 3, expand", "stride must be 1 or 2, got 3"),
        ("stride = 2, expand", "stride = 2.0, expand", "stride must be 1 or 2, got 2.0"),
        (
            "resolution = 64",
            f"resolution = 0x{'f' * 5000}",
            "resolution must be a whole number from 4 to 8192, got a num",
        ),
        ("stride = 2, activation", "stride = true, activation", "stages row 2: stride must be 1 or 2, got True"),
        ("expand_ratio = 6", "expand_ratio = nan", "expand_ratio must be a number from 0.01 to 64, got nan"),
        ("expand_ratio = 6", 'expand_ratio = "6"', "expand_ratio must be a number"),
        ("se_ratio = 0.25", "se_ratio = inf", "se_ratio must be a number from 0 to 4, got inf"),
        ('activation = "relu"', 'activation = "swishy"', "stages row 2: activation must be silu or relu"),
        ('activation = "relu"', "expand_ratio = 2", "stages row 2: expand_ratio must be 1 for operator basic"),
        ('activation = "relu"', "depth = 2", "stages row 2: unknown field 'depth'; allowed are operator, channels"),
        ('activation = "relu"', "skip = 1", "stages row 2: skip must be true or false, got 1"),
        ("resolution = 64", "resolution = 0", "resolution must be a whole number from 4 to 8192, got 0"),
        ("resolution = 64", "", "field resolution is missing"),
        ('name = "mine"', 'name = ""', "name must be 1 to 100 printable characters"),
        ('name = "mine"', "name = 3", "name must be 1 to 100 printable characters"),
        ("stem = { channels = 16 }", "stem = 16", "stem must be a table of fields, got 16"),
        ("stem = { channels = 16 }", "", "field stem is missing"),
        ("head = { channels = 128 }", "head = { width = 1 }", "head: unknown field 'width'"),
        ("stages = [", "stages = [ 7,", "stages row 1 must be a table of fields, got 7"),
        ("stages = [", "rows = [", "unknown field 'rows'"),
        ("resolution = 64", "resolution = ", "not valid TOML"),
    ],
)
def test_a_bad_file_is_named_with_row_field_value_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    path = tmp_path / "mine.toml"
    assert GOOD.count(old) == 1
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(InvalidArchitecture) as caught:
        read(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert says in text
    assert "\n" not in text


def test_a_description_without_a_stage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "x"\nresolution = 32\nstem = { channels = 8 }\nstages = []\n')
    with pytest.raises(InvalidArchitecture, match="stages must hold 1 to 100 rows, got 0"):
        read(path)
    path.write_text('name = "x"\nresolution = 32\nstem = { channels = 8 }\n')
    with pytest.raises(InvalidArchitecture, match="field stages is missing"):
        read(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArchitecture, match="cannot be read: No such file"):
        read(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidArchitecture, match="not UTF-8 text"):
        read(tmp_path / "bytes.toml")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(InvalidArchitecture, match="not valid JSON"):
        read(tmp_path / "deep.json")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(InvalidArchitecture, match="Is a directory"):
        read(tmp_path / "folder.toml")


@given(strategies.architectures())
def test_toml_and_json_round_trips_change_nothing(architecture: Architecture) -> None:
    assert from_dict(tomllib.loads(to_toml(architecture))) == architecture
    assert from_dict(json.loads(json.dumps(to_dict(architecture)))) == architecture
    assert hash(from_dict(to_dict(architecture))) == hash(architecture)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(strategies.architectures(), st.data())
def test_a_description_with_any_value_replaced_is_read_or_refused_in_one_line(
    architecture: Architecture, data: st.DataObject
) -> None:
    tree = to_dict(architecture)
    tables = [tree, tree["stem"], tree["head"], *tree["stages"]]
    table = data.draw(st.sampled_from(tables))
    names = [*table, "operator", "layers", "kernel_size", "stride", "se_ratio", "unheard of"]
    table[data.draw(st.sampled_from(names))] = data.draw(JUNK)
    try:
        read_back = from_dict(tree, source="fuzz.toml")
    except InvalidArchitecture as error:
        assert str(error).startswith("fuzz.toml")
        assert len(str(error).splitlines()) == 1
        return
    assert from_dict(to_dict(read_back)) == read_back
    assert cost(read_back).parameters > 0


@given(st.text(alphabet='abcnames=[]{}"0123456789,.\n -_#', max_size=60), st.integers(0, len(GOOD)))
def test_toml_text_with_anything_put_in_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, noise: str, place: int
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "fuzz.toml"
    path.write_text(GOOD[:place] + noise + GOOD[place:])
    try:
        assert cost(read(path)).multiply_adds > 0
    except InvalidArchitecture as error:
        assert str(error).startswith(str(path))
        assert len(str(error).splitlines()) == 1


def test_blocks_resolves_b0s_first_rows_as_the_paper_says() -> None:
    stem, first, second, third = find("b0").blocks()[:4]
    assert (stem.operator, stem.in_size, stem.out_size, stem.in_channels, stem.out_channels) == (
        "conv",
        224,
        112,
        3,
        32,
    )
    assert (first.mid_channels, first.squeeze_channels, first.out_channels, first.shortcut) == (32, 8, 16, "none")
    assert (second.mid_channels, second.squeeze_channels, second.stride, second.out_size) == (96, 4, 2, 56)
    assert (third.mid_channels, third.squeeze_channels, third.stride, third.shortcut) == (144, 6, 1, "identity")


def test_b0_has_nine_shortcuts() -> None:
    stage_blocks = [block for block in find("b0").blocks() if 1 <= block.stage <= 7]
    assert [i for i, block in enumerate(stage_blocks) if block.shortcut == "identity"] == [
        2,
        4,
        6,
        7,
        9,
        10,
        12,
        13,
        14,
    ]
    assert len(stage_blocks) == find("b0").num_blocks == 16


@given(strategies.architectures(), st.integers(0, 20), st.integers(1, 5))
def test_blocks_hang_together(architecture: Architecture, num_classes: int, in_channels: int) -> None:
    blocks = architecture.blocks(num_classes=num_classes, in_channels=in_channels)
    assert blocks[0].in_channels == in_channels
    assert blocks[0].in_size == architecture.resolution
    convolutional = [block for block in blocks if block.operator != "linear"]
    for before, after in pairwise(convolutional):
        assert (before.out_channels, before.out_size) == (after.in_channels, after.in_size)
    assert (blocks[-1].operator == "linear") == (num_classes > 0)
    for block in convolutional:
        assert block.out_size == -(-block.in_size // block.stride)
        if block.shortcut == "identity":
            assert (block.in_channels, block.in_size) == (block.out_channels, block.out_size)


def test_a_description_is_a_value() -> None:
    b0 = find("b0")
    assert len({find(name) for name in list_models()}) == len(list_models())
    assert replace(b0, resolution=225) != b0
    with pytest.raises(FrozenInstanceError):
        b0.resolution = 3  # type: ignore[misc]  # that it is refused is the point
    with pytest.raises(InvalidArchitecture, match="tuple of Stage"):
        replace(b0, stages=[])  # type: ignore[arg-type]  # likewise


@pytest.mark.parametrize(("num_classes", "in_channels"), [(-1, 3), (10, 0), (2.5, 3), (10, True)])
def test_classes_and_input_channels_are_checked(num_classes: int, in_channels: int) -> None:
    with pytest.raises(InvalidArchitecture, match="must be a whole number"):
        find("b0").blocks(num_classes=num_classes, in_channels=in_channels)
