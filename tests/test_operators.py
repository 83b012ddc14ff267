"""The operators of AutoAugment and RandAugment: levels against the published code, pixels against Pillow."""

import math

import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from trifold._torchvision import v2
from trifold.data.operators import (
    AUTO_CONSTANTS,
    CONSTANTS_SIDE,
    OPERATORS,
    RAND_CONSTANTS,
    numbers,
)

ENHANCERS = {
    "Color": ImageEnhance.Color,
    "Contrast": ImageEnhance.Contrast,
    "Brightness": ImageEnhance.Brightness,
    "Sharpness": ImageEnhance.Sharpness,
}


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def photograph(*shape: int, seed: int = 0) -> Tensor:
    """Random bytes in a narrow range that differs by image and channel, with smooth and noisy parts."""
    low, high = uniform(*shape[:2], 1, 1, seed=seed) * 60, 200 + uniform(*shape[:2], 1, 1, seed=seed + 1) * 55
    ramp = torch.linspace(0, 1, shape[3]) * torch.linspace(0, 1, shape[2])[:, None]
    mixed = 0.7 * ramp + 0.3 * uniform(*shape, seed=seed + 2)
    return (low + (high - low) * mixed).to(torch.uint8)


def apply(name: str, pixels: Tensor, argument: float, places: Tensor | None = None) -> Tensor:
    """An operator at one argument on every image."""
    six, _ = numbers(OPERATORS[name], argument, height=pixels.shape[2], width=pixels.shape[3])
    draws = torch.full((len(pixels), 2), 0.5) if places is None else places
    return OPERATORS[name].kernel(pixels, torch.tensor([six] * len(pixels)), draws)


def to_pil(image: Tensor) -> Image.Image:
    planes = image.permute(1, 2, 0).numpy()
    return Image.fromarray(planes[:, :, 0] if planes.shape[2] == 1 else planes)


def from_pil(image: Image.Image) -> Tensor:
    pixels: Tensor = v2.functional.pil_to_tensor(image)
    return pixels


@pytest.mark.parametrize(
    ("name", "arguments"),  # at levels 0, 4, 8, 10
    [
        ("AutoContrast", (0, 0, 0, 0)),
        ("Equalize", (0, 0, 0, 0)),
        ("Invert", (0, 0, 0, 0)),
        ("Rotate", (0, 12, 24, 30)),
        ("Posterize", (0, 1, 3, 4)),
        ("Solarize", (0, 102, 204, 256)),
        ("Color", (0.1, 0.82, 1.54, 1.9)),
        ("Contrast", (0.1, 0.82, 1.54, 1.9)),
        ("Brightness", (0.1, 0.82, 1.54, 1.9)),
        ("Sharpness", (0.1, 0.82, 1.54, 1.9)),
        ("ShearX", (0, 0.12, 0.24, 0.3)),
        ("ShearY", (0, 0.12, 0.24, 0.3)),
        ("TranslateX", (0, 100, 200, 250)),
        ("TranslateY", (0, 100, 200, 250)),
        ("Cutout", (0, 40, 80, 100)),
        ("SolarizeAdd", (0, 44, 88, 110)),
    ],
)
def test_a_level_gives_the_published_argument(name: str, arguments: tuple[float, ...]) -> None:
    found = [OPERATORS[name].argument(level, AUTO_CONSTANTS) for level in (0.0, 4.0, 8.0, 10.0)]
    assert found == pytest.approx(arguments)


def test_randaugments_own_distances_are_shorter() -> None:
    found = [OPERATORS[name].argument(10.0, RAND_CONSTANTS) for name in ("TranslateX", "TranslateY", "Cutout")]
    assert found == [100, 100, 40]


def test_only_moves_have_a_sign() -> None:
    sixes = {name: numbers(operator, 2.0, height=8, width=8) for name, operator in OPERATORS.items()}
    flipped = {name for name, (plain, other) in sixes.items() if plain != other}
    assert flipped == {"Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"}


@pytest.mark.parametrize("channels", [1, 3])
def test_equalize_invert_solarize_and_posterize_are_pillows_exactly(channels: int) -> None:
    pixels = photograph(6, channels, 19, 23)
    for found, image in zip(apply("Equalize", pixels, 0.0), pixels, strict=True):
        assert torch.equal(found, from_pil(ImageOps.equalize(to_pil(image))))
    for found, image in zip(apply("Invert", pixels, 0.0), pixels, strict=True):
        assert torch.equal(found, from_pil(ImageOps.invert(to_pil(image))))
    for threshold in (0, 51, 102, 204, 256):
        for found, image in zip(apply("Solarize", pixels, float(threshold)), pixels, strict=True):
            assert torch.equal(found, from_pil(ImageOps.solarize(to_pil(image), threshold)))
    for bits in (1, 2, 3, 4, 8):
        for found, image in zip(apply("Posterize", pixels, float(bits)), pixels, strict=True):
            assert torch.equal(found, from_pil(ImageOps.posterize(to_pil(image), bits)))


def test_autocontrast_is_pillows_but_for_rounding() -> None:
    pixels = photograph(6, 3, 19, 23)
    for found, image in zip(apply("AutoContrast", pixels, 0.0), pixels, strict=True):
        gap = found.int() - from_pil(ImageOps.autocontrast(to_pil(image))).int()
        assert int(gap.abs().max()) <= 1
        assert float((gap == 0).float().mean()) > 0.9
        assert found.amin((1, 2)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ENHANCERS)
@pytest.mark.parametrize("factor", [0.1, 0.28, 0.82, 1.0, 1.54, 1.9])
def test_enhancement_is_pillows_exactly(name: str, factor: float) -> None:
    for channels in (1, 3):
        pixels = photograph(6, channels, 19, 23)
        for found, image in zip(apply(name, pixels, factor), pixels, strict=True):
            assert torch.equal(found, from_pil(ENHANCERS[name](to_pil(image)).enhance(factor)))


def test_color_leaves_grey_images_alone() -> None:
    grey = photograph(4, 1, 9, 9)
    assert torch.equal(apply("Color", grey, 1.9), grey)
    assert torch.equal(apply("Color", grey.expand(-1, 3, -1, -1), 0.1), grey.expand(-1, 3, -1, -1))


def test_solarize_add_brightens_the_darker_half_only() -> None:
    pixels = torch.tensor([0, 17, 127, 128, 200, 255], dtype=torch.uint8).view(1, 1, 2, 3)
    assert apply("SolarizeAdd", pixels, 110.0).flatten().tolist() == [110, 127, 237, 128, 200, 255]
    assert apply("SolarizeAdd", pixels, 33.0).flatten().tolist() == [33, 50, 160, 128, 200, 255]


def test_posterize_to_0_bits_keeps_the_highest_as_tensorflows_shift_does() -> None:
    pixels = torch.tensor([0, 127, 128, 255], dtype=torch.uint8).view(1, 1, 2, 2)
    assert apply("Posterize", pixels, 0.0).flatten().tolist() == [0, 0, 128, 128]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (17, 26)])
def test_moves_are_torchvisions_with_nearest_pixels_and_grey_around(channels: int, height: int, width: int) -> None:
    pixels = photograph(1, channels, height, width)
    shear = math.degrees(math.atan(0.2345))
    zero, corner, middle = [0.0, 0.0], [0.0, 0.0], None
    cases: list[tuple[str, float, float, list[float], list[float], list[float] | None]] = [
        # torchvision turns clockwise, Pillow and TensorFlow the other way
        ("Rotate", 24.0, -24.0, zero, zero, middle),
        ("Rotate", -9.0, 9.0, zero, zero, middle),
        ("ShearX", 0.2345, 0.0, zero, [shear, 0.0], corner),
        ("ShearY", -0.2345, 0.0, zero, [0.0, -shear], corner),
        ("TranslateX", 5 * CONSTANTS_SIDE / width, 0.0, [-5.0, 0.0], zero, middle),
        ("TranslateY", -5 * CONSTANTS_SIDE / height, 0.0, [0.0, 5.0], zero, middle),
    ]
    for name, argument, angle, translate, shears, center in cases:
        expected = v2.functional.affine(
            pixels, angle=angle, translate=translate, scale=1.0, shear=shears, center=center, fill=[128.0]
        )
        # Where a source lies on the border between two pixels, rounding decides.
        assert (apply(name, pixels, argument) == expected).float().mean() >= 0.995, name


def test_moves_are_pillows_affine_transform() -> None:
    pixels = photograph(1, 3, 32, 32)
    for name, argument in (("Rotate", 24.0), ("ShearX", 0.123), ("ShearY", -0.277), ("TranslateX", 90.0)):
        six, _ = numbers(OPERATORS[name], argument, height=32, width=32)
        image = to_pil(pixels[0]).transform(
            (32, 32), Image.Transform.AFFINE, six, Image.Resampling.NEAREST, fillcolor=(128, 128, 128)
        )
        assert (apply(name, pixels, argument)[0] == from_pil(image)).float().mean() >= 0.995


def test_a_shift_is_a_share_of_the_side_whatever_the_size() -> None:
    for side in (16, 331):
        pixels = torch.zeros(1, 1, side, side, dtype=torch.uint8)
        columns = (apply("TranslateX", pixels, 100.0)[0, 0, 0] == 128).sum()
        assert int(columns) == pytest.approx(side * 100 / 331, abs=0.5)


def test_a_cutout_is_a_grey_square_cut_off_at_the_border() -> None:
    pixels = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
    places = torch.tensor([[0.5, 0.25], [0.0, 0.0], [0.999, 0.5]])
    found = apply("Cutout", pixels, 40.0, places)  # 40 of 331 is 3.9 of 32
    middle, corner, right = (image[0].nonzero() for image in found == 128)
    assert [middle.amin(0).tolist(), middle.amax(0).tolist(), len(middle)] == [[5, 13], [10, 18], 36]
    assert [corner.amin(0).tolist(), corner.amax(0).tolist(), len(corner)] == [[0, 0], [2, 2], 9]
    assert [right.amin(0).tolist(), right.amax(0).tolist(), len(right)] == [[13, 28], [18, 31], 24]
