"""Recipes as values: the shipped ones, their ranges, and their way through JSON and TOML."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import TINY
from trifold import layers
from trifold.baselines import find, list_models
from trifold.errors import InvalidInput
from trifold.network import drop_path_rates
from trifold.train import recipe as recipe_module
from trifold.train.recipe import Recipe, difference, from_dict
from trifold.train.recipes import RECIPES, base_of, drop_rate_by_size, find_recipe, read, to_toml

B0 = find("b0")
WHOLE, RANGES, CHOICES = recipe_module._WHOLE, recipe_module._RANGES, recipe_module._CHOICES
NO_NUMBERS = (float("nan"), float("inf"), float("-inf"))
SWITCHES = ("freeze_bn", "horizontal_flip", "channels_last", "sync_bn", "compile", "grad_checkpointing")


def recipes() -> st.SearchStrategy[Recipe]:
    """Any recipe whose fields are in range, the ends included."""
    fields: dict[str, st.SearchStrategy[Any]] = {"name": st.sampled_from((*RECIPES, "my own", 'a"b\\c', "größe"))}
    fields |= {name: st.integers(*limits) for name, limits in WHOLE.items()}
    fields |= {name: st.floats(*limits) | st.sampled_from([*map(float, limits)]) for name, limits in RANGES.items()}
    fields |= {name: st.sampled_from(allowed) for name, allowed in CHOICES.items()}
    fields |= dict.fromkeys(SWITCHES, st.booleans())
    fields["accumulate"] = st.just(1)  # its limit is the batch's: see below
    return st.fixed_dictionaries(fields).map(from_dict)


def changed(field: str, value: object) -> Recipe:
    """A recipe, large enough in its batch for any accumulation, with one field changed."""
    return find_recipe("modern", B0, {"batch_size": 65_536, field: value})


# ---- the shipped recipes ----


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_fits_every_shipped_network(name: str) -> None:
    for network in list_models():
        found = find_recipe(name, find(network))
        assert found.name == name
        assert from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_dropout_follows_the_networks_size_as_in_the_paper() -> None:
    rates = {f"b{i}": rate for i, rate in enumerate((0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5))}
    for name, rate in {**rates, "b8": 0.5, "l2": 0.5}.items():
        assert drop_rate_by_size(find(name)) == rate
        assert find_recipe("paper", find(name)).drop_rate == rate
        assert find_recipe("finetune", find(name)).drop_rate == rate


def test_the_paper_recipe_gives_the_papers_drop_path_rates() -> None:
    rates = drop_path_rates(B0, find_recipe("paper", B0).drop_path_rate)
    assert len(rates) == 16
    assert rates[15] == pytest.approx(0.1875)
    assert rates[2] == pytest.approx(0.025)


def test_the_paper_recipe_has_the_constants_of_the_published_code() -> None:
    found = find_recipe("paper", B0)
    constants = {
        "epochs": 350,
        "optimizer": "rmsprop_tf",
        "lr": 0.016,
        "lr_batch": 256,
        "momentum": 0.9,
        "weight_decay": 1e-5,
        "decay": "all_but_norm",
        "schedule": "exponential",
        "decay_rate": 0.97,
        "decay_epochs": 2.4,
        "warmup_epochs": 5,
        "label_smoothing": 0.1,
        "ema_decay": 0.9999,
        "drop_path_rate": 0.2,
        "crop_area": 0.08,
        "policy": "auto_augment",
        "bn_eps": 1e-3,
        "bn_momentum": 0.01,
        "padding": "same",
    }
    assert {name: getattr(found, name) for name in constants} == constants


def test_a_recipes_paddings_are_the_networks() -> None:
    assert recipe_module.PADDINGS == layers.PADDINGS


# ---- ranges ----


@given(found=recipes())
def test_a_recipe_in_range_survives_json_and_toml(found: Recipe) -> None:
    assert from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert from_dict(tomllib.loads(to_toml(found, base_of(found, B0)))) == found


@pytest.mark.parametrize("field", [*WHOLE, *RANGES])
def test_the_ends_of_a_range_are_allowed_and_what_lies_beyond_is_refused_by_name(field: str) -> None:
    whole = field in WHOLE
    low, high = WHOLE[field] if whole else map(float, RANGES[field])
    for value in (low, high):
        assert getattr(changed(field, value), field) == value
    beyond = [low - 1, high + 1] if whole else [math.nextafter(low, -9), math.nextafter(high, 9e9), *NO_NUMBERS]
    for bad in beyond:
        with pytest.raises(InvalidInput, match=f"^recipe: {field} must be a (whole )?number from .* to .*, got ") as no:
            changed(field, bad)
        assert str(no.value).endswith(f"got {bad!r}")
        assert "\n" not in str(no.value)


@given(field=st.sampled_from([*WHOLE, *RANGES]), data=st.data())
def test_a_number_is_taken_if_and_only_if_it_is_in_range(field: str, data: st.DataObject) -> None:
    value = data.draw(st.integers() if field in WHOLE else st.floats())
    low, high = WHOLE[field] if field in WHOLE else RANGES[field]
    if low <= value <= high:
        assert getattr(changed(field, value), field) == value
    else:
        with pytest.raises(InvalidInput, match=f"^recipe: {field} must be "):
            changed(field, value)


@pytest.mark.parametrize("field", CHOICES)
def test_choices_take_nothing_else(field: str) -> None:
    for bad in ("", "None", "ADAMW"):
        with pytest.raises(InvalidInput, match=f"^recipe: {field} must be .* or .*, got {bad!r}$"):
            find_recipe("small", B0, {field: bad})


def test_values_of_another_type_are_refused_by_name() -> None:
    """In a process of its own, where no run-time check of types stands before the recipe's own."""
    script = """
import sys
from trifold.errors import InvalidInput
from trifold.train.recipe import Recipe
base = dict(name="r", epochs=4, batch_size=8, optimizer="sgd", lr=1)
assert Recipe(**base).highest_lr == 1
for field, bad in (("epochs", 4.0), ("epochs", True), ("lr", "1"), ("lr", True), ("shift", None), ("mixup", [1]),
                   ("optimizer", ["sgd"]), ("padding", None), ("compile", 1), ("freeze_bn", "yes")):
    try:
        Recipe(**(base | {field: bad}))
    except InvalidInput as error:
        assert str(error).startswith(f"recipe: {field} must be ") and str(error).endswith(f"got {bad!r}"), error
    else:
        sys.exit(f"{field} = {bad!r} was taken")
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("epochs", 0, "a whole number from 1 to 100000"),
        ("batch_size", 1, "a whole number from 2 to 65536"),
        ("padding", "none", "same or same_static or symmetric"),
        ("lr", 0.0, "a number from 1e-08 to 100"),
        ("lr", float("nan"), "a number from"),
        ("drop_rate", 1.0, "a number from 0 to 0.95"),
        ("optimizer", "adam", "adamw or sgd or rmsprop_tf"),
        ("shift", 0.6, "a number from 0 to 0.5"),
    ],
)
def test_a_recipe_out_of_range_is_refused(field: str, value: object, allowed: str) -> None:
    with pytest.raises(InvalidInput, match=f"^recipe: {field} must be {re.escape(allowed)}.*, got {value!r}$"):
        find_recipe("small", TINY, {field: value})


def test_a_step_cannot_be_cut_into_parts_of_one_image() -> None:
    assert find_recipe("small", TINY, {"batch_size": 8, "accumulate": 4}).accumulate == 4
    with pytest.raises(InvalidInput, match=r"^recipe: accumulate must leave .* 2 images of batch_size 8, got 5$"):
        find_recipe("small", TINY, {"batch_size": 8, "accumulate": 5})


# ---- finding and changing ----


def test_a_change_is_that_field_alone() -> None:
    found = find_recipe("small", TINY, {"epochs": 3, "lr": 0.1})
    assert difference(found, find_recipe("small", TINY)) == (("epochs", 25, 3), ("lr", 3e-3, 0.1))
    assert difference(found, found) == ()


def test_unknown_recipes_and_fields_are_refused_in_one_line() -> None:
    with pytest.raises(InvalidInput, match=r"^recipe must be small or .* or finetune, or a \.toml file, got 'large'$"):
        find_recipe("large", TINY)
    with pytest.raises(InvalidInput, match=r"^recipe has no field 'epoch'; its fields are name, epochs, .*$"):
        find_recipe("small", TINY, {"epoch": 3})
    with pytest.raises(InvalidInput, match=r"^recipe: fields do not fit: .*$"):
        from_dict({"name": "x"})


# ---- TOML ----


def test_a_recipe_file_says_at_each_changed_line_what_its_base_has(tmp_path: Path) -> None:
    base = find_recipe("paper", B0)
    changed = replace(base, epochs=10, optimizer="sgd", horizontal_flip=False)
    text = to_toml(changed, base)
    assert [line for line in text.splitlines() if "#" in line] == [
        "epochs = 10  # paper has 350",
        'optimizer = "sgd"  # paper has "rmsprop_tf"',
        "horizontal_flip = false  # paper has true",
    ]
    (tmp_path / "own.toml").write_text(text)
    assert read(tmp_path / "own.toml") == changed
    assert find_recipe(str(tmp_path / "own.toml"), B0, {"lr": 0.5}) == replace(changed, lr=0.5)
    assert "#" not in to_toml(base, base)


def test_a_recipes_base_is_the_shipped_one_of_its_name_or_itself() -> None:
    changed = replace(find_recipe("paper", B0), epochs=10)
    assert base_of(changed, B0) == find_recipe("paper", B0)
    own = replace(changed, name="own")
    assert base_of(own, B0) == own


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("epochs = ", "Invalid value"),
        ('name = "x"', "recipe: fields do not fit: .*missing"),
        (
            'name = "x"\nepochs = 0\nbatch_size = 8\noptimizer = "sgd"\nlr = 0.1',
            "recipe: epochs must be a whole",
        ),
        ('name = "x"\nepochs = 1\nbatch_size = 8\noptimizer = "sgd"\nlr = 0.1\nspeed = 1', "recipe: fields .*'speed'"),
        ("\xff", "Invalid|utf-8"),
    ],
)
def test_a_bad_recipe_file_is_named_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidInput, match=f"^{re.escape(str(path))}: .*({says})") as caught:
        find_recipe(str(path), B0)
    assert "\n" not in str(caught.value)


def test_a_recipe_file_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"^none\.toml: cannot be read: No such file or directory$"):
        find_recipe("none.toml", B0)
