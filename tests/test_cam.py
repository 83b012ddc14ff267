"""Class activation maps: they split the logit, lie where they belong, and are refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from tests.test_cli import Run, run
from tests.test_data import BAD_IMAGES
from tests.tiny import TINY
from trifold.architecture import Architecture, Head, Stage, Stem
from trifold.baselines import find
from trifold.data.sources import open_data
from trifold.errors import InvalidInput
from trifold.network import PAPER_NUMERICS, TORCH_NUMERICS, Network, Numerics, build
from trifold.report.activation import (
    LETTERS,
    ActivationMaps,
    Panel,
    Row,
    draw_activation_maps,
    overlaid,
    shortened,
)
from trifold.study.activation import (
    class_maps,
    concentration,
    figure_data,
    look,
    open_pictures,
    open_runs,
)
from trifold.train.recipes import find_recipe
from trifold.train.record import Plan
from trifold.train.run import train
from trifold.weights import load, save

__all__ = ["run"]  # the fixture

# ---- the map and the logit ----

NAMES = ("efficientnet_mini", "efficientnet_b0", "mobilenet_v1", "mobilenet_v2", "mnasnet_a1", "resnet18", "resnet50")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("size", "num_classes"), [((32, 32), 2), ((64, 64), 7), ((41, 57), 10)])
def test_a_maps_mean_and_the_bias_are_the_logit(name: str, size: tuple[int, int], num_classes: int) -> None:
    network = build(find(name), num_classes=num_classes, drop_rate=0.5, seed=3).eval()
    nn.init.normal_(network.get_parameter("classifier.bias"), generator=torch.Generator().manual_seed(4))
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        features, logits = network.forward_features(images), network(images)
        maps = class_maps(network, features)
    assert maps.shape == (2, num_classes, *features.shape[2:])
    summed = maps.double().mean((2, 3)) + network.get_parameter("classifier.bias").double()
    scale = float(maps.abs().amax()) + 1
    torch.testing.assert_close(summed, logits.double(), rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize(("num_classes", "global_pool"), [(3, "max"), (3, "avgmax"), (0, "avg")])
def test_a_network_of_another_end_is_refused(num_classes: int, global_pool: str) -> None:
    network = build(TINY, num_classes=num_classes, global_pool=global_pool)
    with pytest.raises(InvalidInput, match="need average pooling and a classifier, got global_pool"):
        class_maps(network, torch.zeros(1, 16, 4, 4))


# ---- where the map lies ----

DEEP = Architecture(
    name="deep",
    resolution=64,
    stem=Stem(channels=4, kernel_size=5, activation="relu"),
    stages=(
        Stage(operator="separable", channels=4, stride=2, kernel_size=5, activation="relu"),
        Stage(operator="mbconv", channels=4, layers=2, stride=2, kernel_size=7, expand_ratio=1, activation="relu"),
        Stage(operator="separable", channels=4, layers=2, stride=2, activation="relu"),
    ),
    head=Head(),
)


def passed_through(architecture: Architecture, numerics: Numerics, num_classes: int = 2) -> Network:
    """A network whose last feature map is what its windows' middles see: no mixing, batch norm that changes nothing."""
    network = build(architecture, num_classes=num_classes, in_channels=1, numerics=replace(numerics, bn_eps=1e-9))
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.zeros_(part.weight)
            middle = part.kernel_size[0] // 2
            with torch.no_grad():
                for channel in range(part.out_channels):
                    part.weight[channel, channel % part.weight.shape[1], middle, middle] = 1.0
        elif isinstance(part, nn.BatchNorm2d):
            part.reset_running_stats()
    return network.eval()


@pytest.mark.parametrize("numerics", [PAPER_NUMERICS, TORCH_NUMERICS], ids=["same", "symmetric"])
@settings(max_examples=10)
@given(x=st.integers(12, 51), y=st.integers(12, 51))
def test_a_planted_spot_is_the_peak_of_its_own_class(numerics: Numerics, x: int, y: int) -> None:
    stages = tuple(replace(stage, layers=1) for stage in DEEP.stages)
    network = passed_through(replace(DEEP, stages=stages), numerics)
    with torch.no_grad():
        network.get_parameter("classifier.weight").copy_(torch.tensor([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]]))
    pixels = torch.zeros(1, 1, 64, 64)
    pixels[0, 0, y - 8 : y + 9, x - 8 : x + 9] = 5.0  # wide enough for some window's middle
    with torch.inference_mode():
        mine, other = class_maps(network, network.forward_features(pixels))[0].double().numpy()
    row, column = np.unravel_index(mine.argmax(), mine.shape)
    place = 64 / len(mine)
    assert abs((row + 0.5) * place - y) <= place + 1
    assert abs((column + 0.5) * place - x) <= place + 1
    assert other.max() <= 0 < mine.max()


# ---- concentration ----


def test_concentration_is_a_half_where_the_map_is_even_and_small_where_it_is_a_point() -> None:
    assert concentration(np.full((4, 4), 2.5)) == pytest.approx(0.5)
    assert concentration(np.pad([[7.0]], ((0, 3), (1, 2)))) == pytest.approx(0.5 / 16)
    assert concentration(np.array([[4.0, 2.0], [1.0, 1.0]])) == pytest.approx(0.25)
    assert concentration(np.array([[6.0, 6.0], [-90.0, 0.0]])) == pytest.approx(0.25)
    assert concentration(np.array([[-1.0, 0.0]])) is None


@given(values=st.lists(st.floats(-10, 10), min_size=4, max_size=40), factor=st.floats(0.01, 100))
def test_concentration_knows_no_scale_and_no_order(values: list[float], factor: float) -> None:
    values = [round(value, 3) for value in values]
    found = concentration(np.array(values))
    if max(values) <= 0:
        assert found is None
        return
    assert found is not None
    assert 0 < found <= 0.5 + 1e-12
    assert concentration(factor * np.array(values[::-1])) == pytest.approx(found)


# ---- trained networks ----

QUADRANTS = 16
"""Pixels of a side; the frames are twice as large."""


def frame(label: int, generator: np.random.Generator) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """A noisy 32x32 frame with a square (label 0) or a cross (label 1) of 8 pixels within one quadrant, and which."""
    pixels = generator.integers(0, 70, (32, 32)).astype(np.uint8)
    quadrant = int(generator.integers(2)), int(generator.integers(2))
    top, left = (QUADRANTS * side + int(generator.integers(1, 8)) for side in quadrant)
    shape = np.zeros((8, 8), bool)
    shape[2:6] = True
    shape = shape | shape.T if label else ~(shape & shape.T)
    pixels[top : top + 8, left : left + 8][shape] = 255
    return pixels, quadrant


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run, shapes/wide, with the data that trained it; the names of test frames hold their quadrant."""
    root = tmp_path_factory.mktemp("shapes")
    generator = np.random.default_rng(0)
    for split, count in (("train", 160), ("test", 50)):
        for label, name in enumerate(("ring", "cross")):
            folder = root / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels, quadrant = frame(label, generator)
                Image.fromarray(pixels).save(folder / f"{number:03d}-{quadrant[0]}{quadrant[1]}.png")
    architecture = Architecture(
        name="shapes",
        resolution=32,
        stem=Stem(channels=8),
        stages=(
            Stage(operator="mbconv", channels=12, stride=2, expand_ratio=4),
            Stage(operator="mbconv", channels=16, layers=2, expand_ratio=4),
        ),
        head=Head(channels=32),
    )
    recipe = replace(find_recipe("small", architecture), epochs=12, batch_size=32)
    train(open_data(str(root / "data")), Plan(architecture=architecture, recipe=recipe), run_folder=root / "wide")
    return root


def centre(values: NDArray[np.float64]) -> tuple[float, float]:
    """The row and column of the centre of the positive mass."""
    positive = np.clip(values, 0, None)
    places = np.arange(len(values))
    return float(positive.sum(1) @ places / positive.sum()), float(positive.sum(0) @ places / positive.sum())


def test_a_trained_networks_map_lies_on_the_shape_that_makes_the_class(shapes: Path) -> None:
    paths = sorted((shapes / "data" / "test").rglob("*.png"))[::3]
    runs, pictures = open_runs([shapes / "wide"]), open_pictures(paths)
    maps = look(runs, pictures)
    right = sum(one.correct is True for (one,) in maps)
    assert right >= 0.9 * len(paths)
    data = figure_data(runs, pictures, maps)
    found = [tuple(int(side >= QUADRANTS) for side in centre(row.panels[0].heat)) for row in data.rows]
    hits = sum("".join(map(str, at)) == path.stem[-2:] for at, path in zip(found, paths, strict=True))
    assert hits >= 0.9 * len(paths)


def test_the_class_that_is_not_there_has_a_map_of_less(shapes: Path) -> None:
    pictures = open_pictures(sorted((shapes / "data" / "test" / "ring").glob("*.png"))[:10])
    runs = open_runs([shapes / "wide"])
    rings, crosses = (look(runs, pictures, name=name) for name in ("ring", "cross"))
    for (ring,), (cross,) in zip(rings, crosses, strict=True):
        assert ring.correct is True
        assert cross.correct is False
        assert ring.probability + cross.probability == pytest.approx(1, abs=1e-5)
    assert np.mean([r.values for (r,) in rings]) > np.mean([c.values for (c,) in crosses])


# ---- the picture ----


def panel(side: int = 8, heat: float = 1.0, lines: tuple[str, ...] = ("cat", "93.1 %, true class")) -> Panel:
    return Panel(np.full((side, side), 100, np.uint8), np.full((side, side), heat), lines)


def test_one_colour_scale_serves_all_panels_of_a_row() -> None:
    panels = panel(heat=2.0), panel(heat=8.0), panel(heat=-3.0)
    row = Row(panels[0].pixels, ("a.png",), panels)
    assert row.highest == 8
    low, high, below = (int(overlaid(one, row.highest).astype(int).sum()) for one in panels)
    assert high > low > below
    assert np.array_equal(overlaid(panel(heat=-3.0), 8.0), overlaid(panel(heat=0.0), 8.0))
    assert Row(panels[2].pixels, (), panels[2:]).highest == 1


def test_the_grey_of_a_coloured_image_is_that_of_its_grey() -> None:
    coloured = panel()._replace(pixels=np.full((8, 8, 3), 100, np.uint8))
    assert np.array_equal(overlaid(coloured, 2.0), overlaid(panel(), 2.0))


def test_long_lines_keep_both_their_ends() -> None:
    assert shortened("short") == "short"
    long = shortened("efficientnet_mini-scaled-for-a-very-small-budget-4M")
    assert len(long) == LETTERS
    assert long.startswith("efficientnet")
    assert long.endswith("budget-4M")


@pytest.mark.parametrize(("columns", "rows"), [(1, 1), (4, 5)])
@pytest.mark.parametrize("lines", [("a",), ("W" * 80, "$x$ {} _^ \\", "第三")], ids=["short", "long"])
def test_the_picture_is_a_png_as_large_as_its_cells(
    tmp_path: Path, columns: int, rows: int, lines: tuple[str, ...]
) -> None:
    row = Row(panel().pixels, lines, tuple(panel(4 + i, lines=lines) for i in range(columns)))
    draw_activation_maps(ActivationMaps((lines,) * columns, (row,) * rows), tmp_path / "maps.png")
    assert [path.name for path in tmp_path.iterdir()] == ["maps.png"]
    with Image.open(tmp_path / "maps.png") as image:
        assert image.format == "PNG"
        assert image.width > 270 * (columns + 1)
        assert image.height > 270 * rows


# ---- the command ----


@pytest.fixture
def folder(shapes: Path, tmp_path: Path) -> Path:
    """A folder with the trained run, a copy of it, and two images, one in a folder named as its class."""
    for name in ("wide", "copy"):
        shutil.copytree(shapes / "wide", tmp_path / name)
    (tmp_path / "cross").mkdir()
    tests = sorted((shapes / "data" / "test" / "cross").glob("*.png"))
    shutil.copy(tests[0], tmp_path / "cross" / "one.png")
    with Image.open(tests[1]) as image:
        image.convert("RGB").resize((60, 90)).save(tmp_path / "two.jpg")
    return tmp_path


def test_cam_prints_a_line_for_each_image_and_run_and_draws_the_picture(run: Run, folder: Path) -> None:
    status, out, err = run("cam", "wide", "cross/one.png", "copy", "two.jpg", "--out", "maps.PNG")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[:2] for line in lines[3:7]] == [
        ["cross/one.png", "wide"], ["cross/one.png", "copy"], ["two.jpg", "wide"], ["two.jpg", "copy"],
    ]  # fmt: skip
    assert " yes " in lines[3]
    assert " not known " in lines[5]
    assert lines[-1] == "maps: maps.PNG"
    with Image.open("maps.PNG") as image:
        assert image.format == "PNG"


def test_cam_json_gives_maps_that_add_up_to_the_logits(run: Run, folder: Path) -> None:
    answers = [
        json.loads(run("cam", "wide", "cross/one.png", "two.jpg", "--json", "--class", name)[1])
        for name in ("ring", "cross")
    ]
    assert Path("cam.png").is_file()
    (facts,) = answers[0]["runs"]
    assert (facts["run"], facts["network"], facts["resolution"]) == ("wide", "shapes", 32)
    assert facts["classes"] == ["cross", "ring"]
    predicted = json.loads(run("predict", "wide", "cross/one.png", "two.jpg", "--json")[1])
    for ring, cross, expected in zip(*(answer["maps"] for answer in answers), predicted, strict=True):
        chances = dict(expected["ranked"])
        assert (ring["class"], cross["class"]) == ("ring", "cross")
        assert ring["probability"] == pytest.approx(chances["ring"], abs=1e-6)
        assert np.array(ring["map"]).shape == (8, 8)
        logits = [np.mean(one["map"]) + one["bias"] for one in (ring, cross)]
        assert 1 / (1 + np.exp(logits[1] - logits[0])) == pytest.approx(chances["ring"], abs=1e-4)
        assert 0 < cross["concentration"] <= 0.5
    assert [one["correct"] for one in answers[1]["maps"]] == [True, None]
    best = json.loads(run("cam", "wide", "cross/one.png", "--json")[1])["maps"][0]
    assert best["class"] == predicted[0]["ranked"][0][0]


def test_an_image_that_trained_a_run_is_named(
    run: Run, shapes: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained_on = sorted((shapes / "data" / "train" / "ring").glob("*.png"))[0]
    assert run("cam", "wide", str(trained_on), "two.jpg")[0] == 0
    assert [record.getMessage() for record in caplog.records] == [f"{trained_on} trained wide or chose its weights"]


def relabelled(path: Path, names: Sequence[str]) -> None:
    """Gives a run's network other classes."""
    network, metadata = load(path / "weights.safetensors")
    own = {name: metadata[name] for name in ("preprocessing", "data")}
    save(path / "weights.safetensors", network, {**own, "classes": json.dumps(list(names))})


def test_runs_of_different_classes_are_compared_each_by_its_own(run: Run, folder: Path) -> None:
    relabelled(folder / "copy", ("cross", "disc"))
    status, out, _ = run("cam", "wide", "copy", "cross/one.png")
    assert status == 0
    assert "the runs have different classes: each map and probability is of a class of its own run" in out
    assert run("cam", "wide", "copy", "cross/one.png", "--class", "cross")[0] == 0
    status, _, err = run("cam", "wide", "copy", "cross/one.png", "--class", "ring")
    assert status == 2
    assert "copy: class 'ring' is not known to this run; its classes are cross, disc" in err


def test_an_absent_class_or_run_or_image_is_one_line_and_nothing_is_written(run: Run, folder: Path) -> None:
    (folder / "plain").mkdir()
    shutil.copytree(folder / "wide", folder / "begun")
    (folder / "begun" / "record.json").unlink()
    shutil.copytree(folder / "wide", folder / "lost")
    (folder / "lost" / "weights.safetensors").unlink()
    (folder / "away").symlink_to(folder / "wide")
    before = sorted(folder.rglob("*"))
    for arguments, says in (
        ((), "Missing argument 'RUN... IMAGE...'"),
        (("two.jpg",), "a run is needed: the folder of a finished training"),
        (("wide",), "an image is needed: a file"),
        (("wide", "none.png"), "none.png: there is no such file or folder"),
        (("plain", "two.jpg"), "plain: is not a run folder: it has no record.json"),
        (("begun", "two.jpg"), "begun: holds an unfinished run"),
        (("lost", "two.jpg"), "lost: has no weights.safetensors"),
        (("wide", "wide/record.json"), "wide/record.json: not an image that Pillow can read"),
        (("wide", "two.jpg", "--class", "disc"), "wide: class 'disc' is not known to this run; its classes are"),
        (("wide", "wide/", "two.jpg"), "runs must be different, got wide/ twice"),
        (("wide", "away", "two.jpg"), "runs must be different, got away twice"),
        (("wide", "two.jpg", "./two.jpg"), "images must be different, got ./two.jpg twice"),
        (("wide", "two.jpg", "--out", "nowhere/cam.png"), "--out must lie in a folder that is there, got 'nowhere/"),
        (("wide", "two.jpg", "--out", "cam.jpg"), "--out must end in .png, got 'cam.jpg'"),
        (("wide", "two.jpg", "--method", "gradcam"), "No such option"),
    ):
        status, out, err = run("cam", *arguments)
        assert (status, out) == (2, ""), arguments
        assert err.count("\n") == 1
        assert says in err
        assert "Traceback" not in err
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_an_unreadable_image_is_named(run: Run, folder: Path, kind: str) -> None:
    name, content, _ = BAD_IMAGES[kind]
    (folder / f"bad{name}").write_bytes(content)
    status, out, err = run("cam", "wide", "two.jpg", f"bad{name}")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f"bad{name}: " in err
    assert not (folder / "cam.png").exists()


def test_too_many_columns_or_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="runs must be at most 12, got 13"):
        open_runs([tmp_path / str(i) for i in range(13)])
    with pytest.raises(InvalidInput, match="images must be at most 40, got 41"):
        open_pictures([tmp_path / str(i) for i in range(41)])
