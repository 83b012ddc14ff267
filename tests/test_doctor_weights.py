"""What the doctor finds in weights: nothing in real ones used rightly, each mistake that was made on purpose.

The real ones are EfficientNet-B4's stem and blocks 0 to 21, on 48 photographs at 128 pixels. Not found by them, and
said so by the command: crops and interpolations, of which a wrong one may lie nearer (results/real_b4).
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from tests.tiny import QUICK, TINY, digits, finished
from trifold import cli, weights
from trifold.data.dataset import Dataset
from trifold.doctor import weights as examined
from trifold.doctor.findings import Finding
from trifold.doctor.weights import check_weights
from trifold.doctor.weights_crops import crops
from trifold.doctor.weights_given import (
    Changes,
    Given,
    Settings,
    at_resolution,
    fed,
    levels_of,
    open_given,
    open_images,
)
from trifold.doctor.weights_labels import orders, read_classes, read_labels, try_orders
from trifold.doctor.weights_statistics import Moments, distances, draws, moments
from trifold.doctor.weights_trials import (
    Scale,
    Trial,
    better,
    given_of,
    told_apart,
    try_input,
    try_numerics,
    try_resolutions,
)
from trifold.errors import InvalidData, InvalidInput
from trifold.layers import PAPER_NUMERICS, TORCH_NUMERICS
from trifold.network import build
from trifold.preprocessing import STANDARD, Preprocessing, plain
from trifold.train.record import Plan, Record

__all__ = ["digits", "finished"]  # fixtures

IMAGENET, HALF = Scale(*STANDARD["imagenet", "RGB"]), Scale(*STANDARD["half", "RGB"])


@pytest.fixture(scope="module")
def photographs(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Every fifth of 250, 48 in all."""
    folder = tmp_path_factory.mktemp("photographs")
    with zipfile.ZipFile(data_dir / "imagenet_photos_250_256px.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[::5][:48]
        return [Path(archive.extract(name, folder)) for name in names]


@pytest.fixture(scope="module")
def b4(data_dir: Path) -> Path:
    return data_dir / "weights" / "efficientnet_b4_stem_to_block21.npz"


def opened(b4: Path, **changes: Any) -> Given:
    return open_given(b4, architecture="b4", like="tf_aa", changes=Changes(**({"resolution": 128} | changes)))


def with_scale(scale: Scale, **changes: Any) -> dict[str, Any]:
    return {"mean": scale.mean, "std": scale.std, **changes}


@pytest.fixture(scope="module")
def right(b4: Path, photographs: list[Path]) -> tuple[Given, list[Trial], list[Trial]]:
    """Input and numerics, tried with the right settings."""
    given, images = opened(b4), open_images(photographs)
    return given, try_input(given, images), try_numerics(given, images, given.settings)


def from_there(trials: Sequence[Trial], name: str) -> list[Trial]:
    """The same trials, as if the one of this name were the setting as given."""
    return [replace(trial, given=trial.name == name) for trial in trials]


def one_of(findings: Sequence[Finding]) -> Finding:
    (found,) = findings
    assert "\n" not in found.text + found.advice
    return found


def test_the_real_tensors_are_healthy_as_published(right: tuple[Given, list[Trial], list[Trial]]) -> None:
    given, inputs, numerics = right
    assert len(given.norms) == 65
    assert inputs[0].given
    assert inputs[0].name == "ImageNet's mean and std, RGB"
    assert inputs[0].distance < 0.3
    assert numerics[0].given
    assert numerics[0].name == "same, 0.001"
    # Every other setting tried is surely farther away, so nothing of it is left open.
    assert all(told_apart(inputs[0], other) for other in inputs[1:] if "CIFAR" not in other.name)
    assert all(told_apart(numerics[0], other) for other in numerics[1:])
    assert not list(examined._input(inputs, 48))
    assert not list(examined._numerics(numerics))


@pytest.mark.parametrize(
    ("name", "what", "advice"),
    [
        ("-1 to 1, RGB", "normalisation", "another normalisation than the weights were trained with"),
        ("0 to 1, RGB", "normalisation", "another normalisation"),
        ("0 to 255, RGB", "normalisation", "pixel values are to be divided by 255 first"),
        ("0 to 255 less ImageNet's mean, BGR", "normalisation", "pixel values are to be divided by 255 first"),
        ("0 to 1, divided by 255 again, RGB", "normalisation", "divided by 255 twice; once is right"),
        ("ImageNet's mean and std, twice, RGB", "normalisation", "images are normalised twice; once is right"),
        ("-1 to 1, twice, RGB", "normalisation", "another normalisation"),
        ("ImageNet's mean and std, BGR", "channels", "red and blue are swapped: feed RGB"),
    ],
)
def test_a_wrong_input_is_named(
    right: tuple[Given, list[Trial], list[Trial]], name: str, what: str, advice: str
) -> None:
    found = one_of(list(examined._input(from_there(right[1], name), 48)))
    assert (found.severity, found.what) == ("error", what)
    assert "with ImageNet's mean and std, RGB (" in found.text
    assert advice in found.advice


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("symmetric, 0.001", ["padding"]), ("same, 1e-05", ["bn_eps"]), ("symmetric, 1e-05", ["padding", "bn_eps"])],
)
def test_wrong_padding_and_epsilon_are_named(
    right: tuple[Given, list[Trial], list[Trial]], name: str, wrong: list[str]
) -> None:
    found = list(examined._numerics(from_there(right[2], name)))
    assert [(finding.severity, finding.what) for finding in found] == [("error", what) for what in wrong]
    advice = {"padding": "same padding (TensorFlow's)", "bn_eps": "epsilon of 0.001"}
    assert all(advice[finding.what] in finding.advice for finding in found)


def test_settings_said_wrong_are_the_ones_tried_as_given(b4: Path, photographs: list[Path]) -> None:
    # The same conclusion by the whole way: the flags of a user who has everything wrong at once.
    given = opened(b4, **with_scale(HALF, channels="bgr", padding="symmetric", bn_eps=1e-5, resolution=64))
    found = check_weights(given, photographs)
    assert [trial.name for trial in found.trials if trial.given] == ["-1 to 1, BGR", "symmetric, 1e-05", "64 pixels"]
    assert [finding.what for finding in found.findings] == [
        "normalisation",
        "padding",
        "bn_eps",
        "resolution",
        "not_told",
    ]
    resolution = found.findings[3]
    assert resolution.severity == "warning"
    assert "128 pixels" in resolution.text
    assert "crops and interpolations" in found.findings[-1].text
    assert "orders of labels, without labels" in found.findings[-1].text


def test_a_resolution_of_half_is_named_and_crops_and_interpolations_are_not(b4: Path, photographs: list[Path]) -> None:
    given, images = opened(b4), open_images(photographs)
    trials = try_resolutions(given, images, given.settings)
    best = better(trials)
    assert best is not None
    assert (best.name, given_of(trials).name) == ("256 pixels", "128 pixels")
    # What is not told: the largest effect of an interpolation or a crop is smaller than that of half the pixels.
    away = {}
    for name, changed in (
        ("as given", {}),
        ("bilinear", {"interpolation": "bilinear"}),
        ("nearest", {"interpolation": "nearest"}),
        ("whole", {"crop": "whole", "resize": 0}),
        ("70 %", {"crop": "resize", "resize": 183}),
    ):
        preprocessing = replace(given.settings.preprocessing, **changed)
        (own,) = [
            trial
            for trial in try_numerics(given, images[:16], replace(given.settings, preprocessing=preprocessing))
            if trial.given
        ]
        away[name] = own.distance
    assert max(away.values()) / min(away.values()) < 1.25 < trials[-1].distance / given_of(trials).distance


def test_tensors_that_are_not_the_networks_own_fit_nothing(b4: Path, photographs: list[Path]) -> None:
    given = opened(b4)
    shuffled = given.network
    for name, module in shuffled.named_modules():
        if isinstance(module, nn.BatchNorm2d) and name in given.norms[:5]:
            assert module.running_mean is not None
            module.running_mean.copy_(module.running_mean.flip(0) * 3 + 1)
    found = check_weights(replace(given, norms=given.norms[:5]), photographs[:8])
    assert found.findings[0].what == "statistics"
    assert found.findings[0].severity == "error"


def calibrated(path: Path, scale: Scale, photographs: Sequence[Path], *, numerics: Any = PAPER_NUMERICS) -> Path:
    """A file whose statistics come from the photographs as this scale prepares them; random weights."""
    network = build(TINY, num_classes=4, numerics=numerics, seed=0)
    preprocessing = replace(plain(64, "RGB"), mean=scale.mean, std=scale.std)
    settings = Settings(preprocessing=preprocessing, numerics=numerics)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        network.train()(fed(levels_of(open_images(photographs), preprocessing), settings))
    weights.save(path, network.eval(), {"preprocessing": json.dumps(preprocessing.to_dict())})
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """32 pictures of smooth random blobs, red brighter than blue, as photographs are."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = torch.Generator().manual_seed(0)
    paths = []
    for number in range(32):
        coarse = torch.rand((1, 3, 9, 9), generator=generator)
        levels = nn.functional.interpolate(coarse, (80, 80), mode="bicubic").clamp(0, 1)[0]
        levels = levels * torch.tensor([1.0, 0.8, 0.6])[:, None, None] * 255
        path = folder / f"{number}.png"
        Image.fromarray(levels.permute(1, 2, 0).byte().numpy()).save(path)
        paths.append(path)
    return paths


@pytest.mark.parametrize(
    ("made_with", "said", "advice"),
    [
        (Scale((0.0,) * 3, (1 / 255,) * 3), IMAGENET, "or their network normalises: do not normalise before it"),
        (IMAGENET.twice(), IMAGENET, "trained on images normalised twice"),
        (IMAGENET, IMAGENET.twice(), "images are normalised twice"),
        (HALF, IMAGENET, "another normalisation"),
    ],
    ids=["normalises itself", "trained twice", "fed twice", "half"],
)
def test_a_normalisation_other_than_that_of_the_making_is_named(
    tmp_path: Path, pictures: list[Path], made_with: Scale, said: Scale, advice: str
) -> None:
    path = calibrated(tmp_path / "tiny.safetensors", made_with, pictures)
    healthy = check_weights(open_given(path), pictures)
    assert [finding.what for finding in healthy.findings] == ["not_told"]
    found = check_weights(open_given(path, changes=Changes(mean=said.mean, std=said.std)), pictures)
    assert found.findings[0].what == "normalisation"
    assert advice in found.findings[0].advice


def test_statistics_and_their_distance_are_those_of_torch() -> None:
    network = build(TINY, num_classes=4, seed=0).eval()
    batch = torch.randn((6, 3, 16, 16), generator=torch.Generator().manual_seed(1))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    names = [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]
    found = moments(network, names, [batch[:2], batch[2:]], own=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    with torch.no_grad():
        x = network.stem.conv(network.stem.pad(batch))
    variance, mean = torch.var_mean(x.double(), dim=(0, 2, 3), correction=0)
    assert torch.allclose(found[0].mean.mean(0), mean, atol=1e-6)
    assert torch.allclose(found[0].square.mean(0) - found[0].mean.mean(0).square(), variance, atol=1e-6)
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    network(batch)
    of_batch = moments(network, names, [batch], own=True)
    # The running variance is torch's unbiased one.
    assert float(distances(of_batch, draws(6))[0]) < 0.01


def test_distance_is_the_formula() -> None:
    ratio = torch.tensor([2.0, 4.0, 8.0], dtype=torch.float64)
    layer = Moments(
        mean=torch.full((2, 3), 0.5, dtype=torch.float64),
        square=(ratio + 0.25).expand(2, 3),
        running_mean=torch.zeros(3, dtype=torch.float64),
        running_var=torch.ones(3, dtype=torch.float64),
    )
    logarithms = ((ratio + 0.01) / 1.01).log()
    middle = logarithms[1]
    wanted = (middle - torch.tensor(1.6).log()) + (logarithms - middle).abs().mean() + 0.5 / 1.01**0.5
    assert torch.allclose(distances([layer], draws(2)), wanted)


def test_our_own_run_is_healthy_and_another_normalisation_of_it_is_not(
    finished: tuple[Path, Record], digits: Dataset, tmp_path: Path
) -> None:
    paths = []
    for number, sample in enumerate(digits.samples[:96]):
        paths.append(tmp_path / f"{number}.png")
        sample.seen().save(paths[-1])
    given = open_given(finished[0])
    assert given.said == "the file"
    assert given.classes == digits.classes
    found = check_weights(given, paths)
    assert not [finding for finding in found.findings if finding.severity == "error"]
    wrong = check_weights(open_given(finished[0], changes=Changes(mean=(0.0,), std=(1 / 255,))), paths)
    assert wrong.findings[0].severity == "error"
    assert wrong.findings[0].what == "normalisation"


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Statistics of momentum 0.3 hold nothing of their start after 42 steps."""
    recipe = replace(QUICK, epochs=6, lr=0.05, bn_momentum=0.3, drop_rate=0.0, drop_path_rate=0.0)
    return Plan(architecture=TINY, recipe=recipe)


def labels_file(folder: Path, paths: Sequence[Path], labels: Sequence[object]) -> Path:
    file = folder / "labels.csv"
    lines = [f"{path.name},{label}" for path, label in zip(paths, labels, strict=True)]
    file.write_text("\n".join(["file,class_index", *lines]))
    return file


NAMES = ("seven", "Apple", "two", "nine", "Berry", "one", "Cherry", "four", "eight", "three")


def test_each_wrong_order_of_labels_is_named_by_a_trained_network(
    finished: tuple[Path, Record], digits: Dataset, tmp_path: Path
) -> None:
    paths = []
    for number, sample in enumerate(digits.samples[:96]):
        paths.append(tmp_path / f"{number}.png")
        sample.seen().save(paths[-1])
    truth = [sample.label for sample in digits.samples[:96]]
    given = open_given(finished[0])
    by_name = sorted(range(10), key=lambda i: NAMES[i].casefold())
    for wrong, named in (
        (truth, ""),
        ([by_name.index(label) for label in truth], "labels in alphabetical order of the names"),
        ([by_name[label] for label in truth], "outputs in alphabetical order of the names"),
    ):
        file = labels_file(tmp_path, paths, wrong)
        found = check_weights(given, paths, labels=file, classes=NAMES)
        errors = [finding for finding in found.findings if finding.what == "label_order"]
        if named:
            (error,) = errors
            assert error.severity == "error"
            assert named in error.text
        else:
            assert not errors
            assert found.orders[0].given
            assert found.orders[0].correct > 48


def test_a_wrong_crop_is_named_by_labels_and_the_right_one_is_not(
    finished: tuple[Path, Record], digits: Dataset, tmp_path: Path
) -> None:
    paths = []
    for number, sample in enumerate(digits.samples[:96]):
        paths.append(tmp_path / f"{number}.png")
        sample.seen().save(paths[-1])
    labels = labels_file(tmp_path, paths, [sample.label for sample in digits.samples[:96]])
    for crop, wrong in ((None, False), ("tensorflow", True)):
        given = open_given(finished[0], changes=Changes(crop=crop))
        found = check_weights(given, paths, labels=labels)
        named = [finding for finding in found.findings if finding.what == "crop"]
        assert len(found.crops) >= 4
        own = next(one for one in found.crops if one.given)
        assert (own.ahead, own.error, own.sure) == (0, 0, 0)
        if wrong:  # a fifth of a digit's side is enough
            assert own.correct < found.crops[0].correct
            assert one_of(named).severity == "warning"
            assert "as given" in named[0].text
        else:
            assert not named
        assert not any("crops and interpolations" in finding.text for finding in found.findings)


def test_crops_are_of_the_given_size_and_each_once() -> None:
    given = Preprocessing(resolution=224, mode="RGB", mean=IMAGENET.mean, std=IMAGENET.std)
    found = crops(given)
    assert next(iter(found.values())) == given
    assert len(set(found.values())) == len(found) == 5
    assert {one.resolution for one in found.values()} == {224}
    assert found["shorter side 256, centre 224"].resize == 256


def test_orders_are_permutations_that_undo_each_other() -> None:
    found = orders(12, ())
    numbers = "numbers sorted as text (0, 1, 10, 100, ...)"
    assert found[f"outputs in {numbers}"].tolist() == [0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 2, 3]
    assert found[f"labels in {numbers}"].tolist() == [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]
    assert found["one output later (a background class stands first)"].tolist() == [*range(1, 12), -1]
    assert found["one output earlier (labels count from 1)"].tolist() == list(range(-1, 11))
    assert len(orders(3, ())) == 3  # a text order that is the given one is none of its own


def test_a_background_class_first_is_named_and_chance_is_not() -> None:
    labels = torch.arange(100) % 40
    found = try_orders(labels + 1, labels, 41)
    assert (found[0].name, found[0].correct) == ("one output later (a background class stands first)", 100)
    assert found[0].sure == 10.0
    generator = torch.Generator().manual_seed(0)
    chance = try_orders(torch.randint(41, (100,), generator=generator), labels, 41)
    assert max(order.sure for order in chance) < 2.5
    with pytest.raises(InvalidData, match=r"^labels must be below the network's 41 outputs, got 41$"):
        try_orders(labels, labels + 2, 41)


def examination(found: str) -> dict[str, Any]:
    value = json.loads(found)
    assert isinstance(value, dict)
    return value


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["trifold", "doctor", "weights", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(str(stop.value.code or 0))


def test_the_command_prints_tables_and_findings_and_its_status(
    tmp_path: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = calibrated(tmp_path / "tiny.safetensors", IMAGENET, pictures)
    assert run(monkeypatch, path, *pictures) == 0
    out, err = capsys.readouterr()
    assert "32 images; settings as given are those of the file" in out
    for title in ("normalisation and channels", "padding and batch-norm epsilon", "note: not_told"):
        assert title in out
    assert err.splitlines()[0] == "looking at normalisation and channels"
    assert run(monkeypatch, path, *pictures, "--mean", "0.5", "--std", "0.5,0.5,0.5", "--json") == 1
    found = examination(capsys.readouterr().out)
    assert found["findings"][0]["what"] == "normalisation"
    assert found["settings"]["preprocessing"]["std"] == [0.5] * 3
    assert found["trials"][0]["name"] == "ImageNet's mean and std, RGB"
    assert next(trial["name"] for trial in found["trials"] if trial["given"]) == "-1 to 1, RGB"
    assert run(monkeypatch, path, *pictures, "--channels", "bgr") == 1
    assert "error: channels: " in capsys.readouterr().out


def test_bad_input_is_one_line_and_status_2(
    tmp_path: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = calibrated(tmp_path / "tiny.safetensors", IMAGENET, pictures)
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    labels = labels_file(tmp_path, pictures, [0] * len(pictures))
    for arguments, line in (
        ((tmp_path / "absent.npz", *pictures, "--architecture", "b0"), "absent.npz: no such file"),
        ((path,), "images must be 8 to 256 photographs, got 0"),
        ((path, *pictures[:7]), "images must be 8 to 256 photographs, got 7"),
        ((path, *pictures[:7], text), "text.jpg: not an image that Pillow can read"),
        ((path, *pictures[:7], tmp_path / "absent.png"), "absent.png: cannot be read"),
        ((path, *pictures, "--architecture", "b0"), "holds tiny, which is not the architecture efficientnet_b0"),
        ((path, *pictures, "--mean", "a"), "--mean must be numbers with commas between, got 'a'"),
        ((path, *pictures, "--mean", "0.5,0.5"), "mean must hold 3 numbers"),
        ((path, *pictures, "--std", "0"), "std must be above 0"),
        ((path, *pictures, "--padding", "reflect"), "padding must be same or same_static or symmetric"),
        ((path, *pictures, "--bn-eps", "0"), "bn_eps must be a number in (0, 1), got 0.0"),
        ((path, *pictures, "--channels", "hsv"), "channels must be rgb or bgr, got 'hsv'"),
        ((path, *pictures, "--labels", text), "needs lines with the columns file"),
        ((path, *pictures[1:], text.with_name("x.png"), "--labels", labels), "x.png: cannot be read"),
    ):
        assert run(monkeypatch, *arguments) == 2, arguments
        out, err = capsys.readouterr()
        assert not out
        assert line in err.splitlines()[-1]
        assert len([one for one in err.splitlines() if not one.startswith("looking")]) == 1


def test_labels_and_names_are_read_or_refused(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("a\nb \n\nc\n")
    assert read_classes(names) == ("a", "b", "c")
    file = labels_file(tmp_path, [Path("x.png"), Path("y.png")], ["b", "2"])
    assert read_labels(file, ["elsewhere/y.png", "x.png"], ("a", "b", "c")).tolist() == [2, 1]
    with pytest.raises(InvalidData, match=r"has no line for z\.png$"):
        read_labels(file, ["z.png"], ("a", "b", "c"))
    with pytest.raises(InvalidData, match=r"class_index must be an output's number or a class's name, got 'b'$"):
        read_labels(file, ["x.png"], ())


def test_labels_need_a_classifier_and_architecture_needs_a_name(b4: Path, photographs: list[Path]) -> None:
    with pytest.raises(InvalidInput, match=r"^labels need the network's classifier, which the file does not hold$"):
        check_weights(opened(b4), photographs, labels="x.csv")
    with pytest.raises(InvalidInput, match=r"does not say which network it is for; --architecture names it$"):
        open_given(b4)
    with pytest.raises(InvalidData, match="must have shape"):
        open_given(b4, architecture="b0")


def test_settings_come_from_flags_before_the_weight_set(b4: Path) -> None:
    ours = open_given(b4, like="efficientnet_b4.tf_ap").settings
    assert ours.preprocessing.mean == HALF.mean
    assert (ours.numerics.padding, ours.numerics.bn_eps) == ("same", 1e-3)
    changed = opened(b4, mean=(0.4,), crop="whole", padding="symmetric", bn_eps=1e-5, resolution=96).settings
    assert changed.preprocessing.mean == (0.4,) * 3
    assert (changed.preprocessing.crop, changed.preprocessing.resize) == ("whole", 0)
    assert (changed.numerics.padding, changed.numerics.bn_eps) == ("symmetric", TORCH_NUMERICS.bn_eps)
    assert at_resolution(opened(b4).settings.preprocessing, 64).resize == 70
