"""Preprocessing beside the libraries whose arithmetic it names: timm, torchvision and TensorFlow, bit for bit."""

from __future__ import annotations

import io
import json
import math
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from tests.tiny import TINY
from trifold import weights
from trifold._torchvision import torchvision, v2
from trifold.data.dataset import Dataset, Sample
from trifold.data.images import cropped, normalise, to_input, to_pixels
from trifold.data.resize import TENSORFLOW_PADDING, central_box, resized, shorter_side_resized, to_levels
from trifold.errors import InvalidData
from trifold.network import build
from trifold.preprocessing import STANDARD, Preprocessing, from_dict, plain
from trifold.train.use import evaluate, predict

timm_data: Any = timm.data  # without annotations

PLAIN = plain(24, "RGB")
SIDES = st.integers(4, 160)


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Every level beside every other: what an error in a weight or an offset shows in."""
    shape = (height, width) if mode == "L" else (height, width, 3)
    return Image.fromarray(np.random.default_rng(width * 1000 + height).integers(0, 256, shape, dtype=np.uint8))


@pytest.fixture(scope="module")
def photographs(data_dir: Path) -> list[Image.Image]:
    """Three of some megapixels or less, and every twentieth of 250 whose shorter side is 256, tall, wide and square."""
    found = [Image.open(path).convert("RGB") for path in sorted((data_dir / "photos").iterdir())]
    with zipfile.ZipFile(data_dir / "imagenet_photos_250_256px.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        found += [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in names[::20]]
    assert len(found) == 16
    return found


# ---- the value ----


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"resolution": 3}, "resolution must be 4 to 8192 pixels, got 3"),
        ({"resolution": 8193}, "resolution must be 4 to 8192 pixels, got 8193"),
        ({"resolution": 24.0}, "resolution must be 4 to 8192 pixels, got 24.0"),
        ({"mode": "RGBA"}, "mode must be L or RGB, got 'RGBA'"),
        ({"interpolation": "area"}, "interpolation must be one of bilinear, bicubic, nearest, got 'area'"),
        ({"crop": "border"}, "crop must be one of square, resize, tensorflow, whole, got 'border'"),
        ({"resizer": "opencv"}, "resizer must be one of torch, pillow, tensorflow, got 'opencv'"),
        ({"antialias": 1}, "antialias must be true or false for the resizer torch, got 1"),
        ({"resizer": "pillow", "antialias": False}, "antialias must be true for the resizer pillow, got False"),
        ({"resizer": "tensorflow"}, "antialias must be false for the resizer tensorflow, got True"),
        ({"resize": 32}, "resize must be 0 for the crop square, got 32"),
        ({"crop": "whole", "resize": 24}, "resize must be 0 for the crop whole, got 24"),
        ({"crop": "resize"}, "resize must be 24 to 8192 pixels, got 0"),
        ({"crop": "resize", "resize": 23}, "resize must be 24 to 8192 pixels, got 23"),
        ({"crop": "resize", "resize": 8193}, "resize must be 24 to 8192 pixels, got 8193"),
        ({"crop": "resize", "resize": 27.4}, "resize must be 24 to 8192 pixels, got 27.4"),
        ({"mean": (0.5,)}, "mean must hold 3 numbers, got (0.5,)"),
        ({"std": (1.0,) * 4}, "std must hold 3 numbers, got (1.0, 1.0, 1.0, 1.0)"),
        ({"mean": (0.5, 0.5, math.nan)}, "mean must hold finite numbers, got (0.5, 0.5, nan)"),
        ({"std": (1.0, 1.0, "1")}, "std must hold finite numbers, got (1.0, 1.0, '1')"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be above 0, got (1.0, 0.0, 1.0)"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_with_field_value_and_allowed(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidData, match=f"^{re.escape(f'preprocessing: {says}')}$"):
        replace(PLAIN, **changes)


def test_a_run_saved_before_crop_and_resizer_were_fields_is_read_as_what_it_was() -> None:
    older = {"resolution": 24, "mode": "L", "mean": [0.5], "std": [0.25], "interpolation": "bicubic"}
    found = from_dict(older)
    assert found == Preprocessing(resolution=24, mode="L", mean=(0.5,), std=(0.25,), interpolation="bicubic")
    assert (found.crop, found.resize, found.resizer, found.antialias) == ("square", 0, "torch", True)
    assert from_dict(json.loads(json.dumps(found.to_dict()))) == found
    with pytest.raises(InvalidData, match=r"preprocessing: fields do not fit: .*unexpected keyword argument 'padding'"):
        from_dict({**older, "padding": 32})


def test_the_range_is_what_black_and_white_become() -> None:
    value = replace(PLAIN, mean=(127 / 255, 0.5, 0.0), std=(128 / 255, 0.5, 1.0))
    expected = [(-127 / 128, 1.0), (-1.0, 1.0), (0.0, 1.0)]
    assert [pytest.approx(pair) for pair in value.range] == expected
    for level, place in ((0, 0), (255, 1)):
        made = to_input(Image.new("RGB", (24, 24), (level,) * 3), value)
        assert made[:, 0, 0].tolist() == pytest.approx([pair[place] for pair in expected])


# ---- training's own: bytes by torchvision's tensor transforms ----


@given(width=SIDES, height=SIDES, mode=st.sampled_from(["L", "RGB"]), kind=st.sampled_from(["bilinear", "bicubic"]))
def test_the_default_is_what_it_was_before_it_had_a_name(width: int, height: int, mode: str, kind: str) -> None:
    image, value = noise(width, height, mode), replace(plain(24, mode), interpolation=kind)
    pixels = v2.functional.center_crop(v2.functional.pil_to_tensor(image), [min(width, height)])
    mode_of = {"bilinear": v2.InterpolationMode.BILINEAR, "bicubic": v2.InterpolationMode.BICUBIC}
    expected = v2.functional.resize(pixels, [24, 24], interpolation=mode_of[kind], antialias=True)
    assert torch.equal(to_pixels(image, value), expected)
    scaled = v2.functional.to_dtype(expected, torch.float32, scale=True)
    assert torch.equal(to_input(image, value), v2.functional.normalize(scaled, list(value.mean), list(value.std)))


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
def test_without_antialias_torch_interpolates_between_neighbours_alone(kind: str) -> None:
    image = noise(100, 90).point(lambda level: 64 + level // 2)  # whose overshoot is not clipped between the two steps
    found = to_pixels(image, replace(PLAIN, interpolation=kind, antialias=False))
    whole = v2.functional.pil_to_tensor(image)[None, :, :, 5:95].float()
    expected = torch.nn.functional.interpolate(whole, (24, 24), mode=kind, align_corners=False)[0]
    assert (
        found.float() - expected
    ).abs().max() <= 1.2  # torch rounds after each step: 0.5 + 0.5 * 1.375 of the weights
    assert (found.float() - to_pixels(image, replace(PLAIN, interpolation=kind)).float()).abs().max() > 25


def test_a_random_crop_is_resized_by_the_same_arithmetic() -> None:
    image, box = noise(80, 60), (10, 5, 40, 50)
    for resizer, antialias in (("torch", True), ("torch", False), ("pillow", True), ("tensorflow", False)):
        value = replace(PLAIN, crop="whole", resizer=resizer, antialias=antialias)
        part = image.crop((10, 5, 50, 55))
        assert torch.equal(cropped(image, box, value), to_pixels(part, value)), resizer


# ---- timm and torchvision: bytes by Pillow ----

TIMM = (
    *(f"tf_efficientnet_b{i}.aa_in1k" for i in range(8)),  # .875 to .949 of 224 to 600 pixels, bicubic
    "tf_efficientnet_b0.ap_in1k",  # mean and std of one half
    "tf_efficientnet_b8.ap_in1k",
    "tf_efficientnet_l2.ns_jft_in1k_475",  # .936
    "tf_efficientnet_l2.ns_jft_in1k",  # .96 of 800
    "tf_efficientnet_lite3.in1k",  # bilinear
    "tf_efficientnet_lite4.in1k",
    "efficientnet_b0.ra4_e3600_r224_in1k",  # .9
    "tf_efficientnetv2_s.in21k_ft_in1k",  # the whole height or width
    "tf_efficientnetv2_m.in1k",  # squashed
    "mobilenetv1_100.ra4_e3600_r224_in1k",
    "resnet18.tv_in1k",  # bilinear
)


def of_timm(config: dict[str, Any]) -> Preprocessing:
    """The value for a configuration of timm's."""
    side = config["input_size"][1]
    squashed = config["crop_mode"] == "squash"
    assert not squashed or config["crop_pct"] == 1
    return Preprocessing(
        resolution=side,
        mode="RGB",
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        crop="whole" if squashed else "resize",
        resize=0 if squashed else math.floor(side / config["crop_pct"]),
        resizer="pillow",
    )


@pytest.mark.parametrize("name", TIMM)
def test_inputs_are_timms_bit_for_bit(photographs: list[Image.Image], name: str) -> None:
    known: Any = timm.get_pretrained_cfg(name)
    config = timm_data.resolve_data_config(pretrained_cfg=known.to_dict())
    transform, value = timm_data.create_transform(**config), of_timm(config)
    for image in [*photographs[:: 4 if value.resolution > 400 else 1], noise(61, 200), noise(201, 60), noise(30, 30)]:
        assert torch.equal(to_input(image, value), transform(image))


@given(width=SIDES, height=SIDES, share=st.floats(0.8, 1), kind=st.sampled_from(["bilinear", "bicubic"]))
def test_inputs_are_timms_for_every_size_and_share(width: int, height: int, share: float, kind: str) -> None:
    config = timm_data.resolve_data_config({"img_size": 24, "crop_pct": share, "interpolation": kind})
    image = noise(width, height)
    assert torch.equal(to_input(image, of_timm(config)), timm_data.create_transform(**config)(image))
    squashed = {**config, "crop_mode": "squash", "crop_pct": 1.0}
    assert torch.equal(to_input(image, of_timm(squashed)), timm_data.create_transform(**squashed)(image))


TORCHVISION = (
    *(f"EfficientNet_B{i}_Weights.IMAGENET1K_V1" for i in range(8)),
    "EfficientNet_B1_Weights.IMAGENET1K_V2",  # bilinear, 240 of 255: an odd rest
    *(f"EfficientNet_V2_{size}_Weights.IMAGENET1K_V1" for size in "SML"),
    "MobileNet_V2_Weights.IMAGENET1K_V2",
    "ResNet50_Weights.IMAGENET1K_V2",
)


def preset(name: str) -> Any:
    """torchvision's transform for evaluation of these weights."""
    family, version = name.split(".")
    return getattr(torchvision.models, family)[version].transforms()


def of_torchvision(transform: Any) -> Preprocessing:
    """The value for a preset of torchvision's."""
    return Preprocessing(
        resolution=transform.crop_size[0],
        mode="RGB",
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        interpolation=transform.interpolation.value,
        crop="resize",
        resize=transform.resize_size[0],
        resizer="pillow",
    )


@pytest.mark.parametrize("name", TORCHVISION)
def test_inputs_are_torchvisions_bit_for_bit(photographs: list[Image.Image], name: str) -> None:
    transform = preset(name)
    value = of_torchvision(transform)
    for image in [*photographs[:: 4 if value.resolution > 400 else 1], noise(61, 200), noise(201, 60), noise(30, 30)]:
        assert torch.equal(to_input(image, value), transform(image))


@given(width=SIDES, height=SIDES, crop=st.integers(4, 33), more=st.integers(0, 9))
def test_inputs_are_torchvisions_for_every_size(width: int, height: int, crop: int, more: int) -> None:
    transform = type(preset(TORCHVISION[0]))(crop_size=crop, resize_size=crop + more)
    image = noise(width, height)
    assert torch.equal(to_input(image, of_torchvision(transform)), transform(image))


@given(width=SIDES, height=SIDES, crop=st.integers(4, 33), more=st.integers(0, 9), antialias=st.booleans())
def test_inputs_by_torch_are_those_of_torchvisions_transforms_of_tensors(
    width: int, height: int, crop: int, more: int, antialias: bool
) -> None:
    transform = type(preset(TORCHVISION[0]))(crop_size=crop, resize_size=crop + more)
    value = replace(of_torchvision(transform), resizer="torch", antialias=antialias)
    image = noise(width, height)
    of_tensors = v2.Compose(
        [
            v2.PILToTensor(),
            v2.Resize(crop + more, antialias=antialias),
            v2.CenterCrop(crop),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(value.mean, value.std),
        ]
    )
    assert torch.equal(to_input(image, value), of_tensors(image))


def test_the_longer_side_is_cut_and_an_odd_rest_goes_to_the_even_place() -> None:
    assert shorter_side_resized(500, 375, 256) == (341, 256)  # 341.33
    assert shorter_side_resized(375, 500, 256) == (256, 341)
    assert shorter_side_resized(334, 500, 256) == (256, 383)  # 383.23
    lefts = [central_box(4 + rest, 4, plain(4, "L"))[0] for rest in range(8)]
    assert lefts == [0, 0, 1, 2, 2, 2, 3, 4]


# ---- TensorFlow ----

TF = Preprocessing(
    resolution=224, mode="RGB", mean=STANDARD["imagenet", "RGB"][0], std=STANDARD["imagenet", "RGB"][1],
    interpolation="bicubic", crop="tensorflow", resizer="tensorflow", antialias=False,
)  # fmt: skip
"""As the published checkpoints were evaluated (tensorflow/tpu preprocessing.py)."""


def test_the_crop_is_that_of_the_published_checkpoints() -> None:
    assert central_box(500, 375, TF) == (86, 24, 328, 328)  # int(.875 * 375); (172 + 1) // 2, (47 + 1) // 2
    assert central_box(375, 500, TF) == (24, 86, 328, 328)
    assert central_box(640, 480, replace(TF, resolution=600)) == (93, 13, 455, 455)  # int(.9494 * 480)
    assert central_box(46, 80, replace(TF, resolution=14)) == (17, 34, 13, 13)  # 14.0 but for float32
    assert central_box(4, 4, replace(TF, resolution=4))[2:] == (1, 1)  # never nothing


class TensorFlow:
    """The operations that are compared with, on images of channels first."""

    def __init__(self, tensorflow: Any) -> None:
        self.tf = tensorflow
        operations = self.tf.raw_ops  # tf.compat.v1.image.resize_… under the names they are registered by
        self.operations = {
            "bicubic": operations.ResizeBicubic,
            "bilinear": operations.ResizeBilinear,
            "nearest": operations.ResizeNearestNeighbor,
        }

    def resize(self, image: Image.Image, size: Sequence[int], kind: str) -> Tensor:
        """TF1's: align_corners false, half_pixel_centers false."""
        rows = np.asarray(image, dtype=np.float32)
        rows = rows[:, :, None] if rows.ndim == 2 else rows
        made = self.operations[kind](images=rows[None], size=size, align_corners=False, half_pixel_centers=False)
        return torch.from_numpy(made.numpy()[0].transpose(2, 0, 1).copy())

    def sides(self, resolution: int, shorter: range) -> list[int]:
        """The side of the crop, as tensorflow/tpu's graph computes it."""
        tf, numbers = self.tf, self.tf.constant(list(shorter), self.tf.int32)
        share = resolution / (resolution + TENSORFLOW_PADDING)
        sides: list[int] = tf.cast(share * tf.cast(numbers, tf.float32), tf.int32).numpy().tolist()
        return sides


@pytest.fixture(scope="module")
def tensorflow() -> TensorFlow:
    """Its import takes seconds; the tests that ask for it are skipped where it is not installed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own
        return TensorFlow(
            pytest.importorskip("tensorflow", reason="tensorflow is not installed: the peer compared with")
        )


@given(
    size=st.tuples(SIDES, SIDES),
    out=st.tuples(SIDES, SIDES),
    mode=st.sampled_from(["L", "RGB"]),
    kind=st.sampled_from(["bicubic", "bilinear", "nearest"]),
)
@settings(max_examples=200)
def test_the_legacy_resize_is_tensorflows_bit_for_bit(
    tensorflow: TensorFlow, size: tuple[int, int], out: tuple[int, int], mode: str, kind: str
) -> None:
    image = noise(*size, mode)
    value = replace(plain(4, mode), interpolation=kind, resizer="tensorflow", antialias=False)
    found = resized(image, (0, 0, *size), out, value)
    assert torch.equal(found, tensorflow.resize(image, out, kind))


@pytest.mark.parametrize("resolution", [224, 300, 600])
def test_levels_of_photographs_are_tensorflows_bit_for_bit(
    tensorflow: TensorFlow, photographs: list[Image.Image], resolution: int
) -> None:
    for value in (replace(TF, resolution=resolution), replace(TF, resolution=resolution, interpolation="bilinear")):
        for image in photographs[:: 1 if resolution == 224 else 4]:
            left, top, width, height = central_box(*image.size, value)
            part = image.crop((left, top, left + width, top + height))
            expected = tensorflow.resize(part, (resolution, resolution), value.interpolation)
            assert torch.equal(to_levels(image, value), expected)
            mean, std = (torch.tensor(values)[:, None, None] * 255 for values in (value.mean, value.std))
            assert (to_input(image, value) - (expected - mean) / std).abs().max() <= 1e-5  # model_fn's order


def test_the_side_of_the_crop_is_tensorflows(tensorflow: TensorFlow) -> None:
    for resolution in (14, 88, 224, 300, 456, 800):
        shorter = range(8, 1500)
        found = [central_box(side, side, replace(TF, resolution=resolution))[2] for side in shorter]
        assert found == tensorflow.sides(resolution, shorter)


def test_bytes_of_the_legacy_resize_are_rounded_and_clipped_and_levels_are_not() -> None:
    image = noise(50, 50)
    value = replace(TF, resolution=64, crop="whole")
    levels, pixels = to_levels(image, value), to_pixels(image, value)
    assert levels.min() < -1
    assert levels.max() > 256
    assert torch.equal(pixels.float(), levels.round().clamp(0, 255))
    assert torch.equal(to_input(image, value), normalise(levels[None], value)[0])
    assert (to_input(image, value) - normalise(pixels[None], value)[0]).abs().max() > 0.01


# ---- a finished network put to use ----


def saved(folder: Path, preprocessing: Preprocessing) -> tuple[Path, Callable[[Tensor], Tensor]]:
    """A weights file as a run writes it, and its network."""
    network = build(TINY, num_classes=2, seed=1).eval()
    metadata = {
        "classes": ["cat", "dog"],
        "preprocessing": preprocessing.to_dict(),
        "data": {"fingerprint": "other", "split_seed": 0},
    }
    weights.save(folder / "weights.safetensors", network, {name: json.dumps(each) for name, each in metadata.items()})
    return folder / "weights.safetensors", network


@pytest.mark.parametrize("crop", ["tensorflow", "resize"])
def test_predicting_and_evaluating_prepare_images_exactly(tmp_path: Path, crop: str) -> None:
    pillow = replace(TF, resolution=8, crop="resize", resize=9, resizer="pillow", antialias=True)
    value = replace(TF, resolution=8) if crop == "tensorflow" else pillow
    file, network = saved(tmp_path, value)
    images = [noise(20 + i, 30 - i) for i in range(12)]
    samples, paths = [], []
    for i, image in enumerate(images):
        paths.append(tmp_path / f"{i}.png")
        image.save(paths[-1])
        width, height = image.size
        samples.append(
            Sample(name=f"{i}", label=i % 2, split="", width=width, height=height, mode="RGB", digest=f"{i}",
                   content=paths[-1])
        )  # fmt: skip
    with torch.inference_mode():
        expected = network(torch.stack([to_input(image, value) for image in images])).softmax(1)
        rounded = network(normalise(torch.stack([to_pixels(image, value) for image in images]), value)).softmax(1)
    assert torch.equal(rounded, expected) == (crop == "resize")
    found = torch.tensor([[dict(each.ranked)[name] for name in ("cat", "dog")] for each in predict(file, paths)])
    assert (found - expected).abs().max() <= 1e-6
    if crop == "tensorflow":
        assert (rounded - expected).abs().max() > 1e-5
    counted = evaluate(file, Dataset(name="made", classes=("cat", "dog"), samples=tuple(samples)))
    answers = [[0, 0], [0, 0]]
    for i, answer in enumerate(expected.argmax(1).tolist()):
        answers[i % 2][answer] += 1
    assert [list(row) for row in counted.confusion] == answers
