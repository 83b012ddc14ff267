"""AutoAugment and RandAugment: levels against the published code, operators against Pillow, frequencies, neighbours."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from scipy.stats import chisquare  # type: ignore[import-untyped]  # scipy has no annotations
from torch import Tensor

from trifold._torchvision import v2
from trifold.data.operators import (
    AUTO_CONSTANTS,
    CONSTANTS_SIDE,
    OPERATORS,
    RAND_CONSTANTS,
    numbers,
)
from trifold.data.policy import AUTO_DRAWS, AUTO_POLICY, auto_augment, rand_augment, rand_draws

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
    picture: Image.Image = v2.functional.to_pil_image(image)
    return picture


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
    flipped = {
        name
        for name, row in OPERATORS.items()
        if numbers(row, 2.0, height=8, width=8)[1][0:6] != numbers(row, 2.0, height=8, width=8)[0]
    }
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
        assert found.amin((1, 2)).tolist() == [0, 0, 0]
        assert found.amax((1, 2)).tolist() == [255, 255, 255]


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
    still: dict[str, object] = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0], "fill": 128}
    shear = math.degrees(math.atan(0.24))
    shift = 5
    cases: list[tuple[str, float, dict[str, object]]] = [
        ("Rotate", 24.0, {"angle": 24.0}),
        ("Rotate", -9.0, {"angle": -9.0}),
        ("ShearX", 0.24, {"shear": [shear, 0.0], "center": [0, 0]}),
        ("ShearY", -0.24, {"shear": [0.0, -shear], "center": [0, 0]}),
        ("TranslateX", shift * CONSTANTS_SIDE / width, {"translate": [-shift, 0]}),
        ("TranslateY", -shift * CONSTANTS_SIDE / height, {"translate": [0, shift]}),
    ]
    for name, argument, settings_ in cases:
        expected = v2.functional.affine(pixels, **{**still, **settings_})
        # Where a source lies on the border between two pixels, rounding decides.
        assert (apply(name, pixels, argument) == expected).float().mean() >= 0.985, (name, argument)


def test_moves_are_pillows_affine_transform() -> None:
    pixels = photograph(1, 3, 32, 32)
    for name, argument in (("Rotate", 24.0), ("ShearX", 0.12), ("ShearY", -0.3), ("TranslateX", 90.0)):
        six, _ = numbers(OPERATORS[name], argument, height=32, width=32)
        image = to_pil(pixels[0]).transform(
            (32, 32), Image.Transform.AFFINE, six, Image.Resampling.NEAREST, fillcolor=(128, 128, 128)
        )
        assert (apply(name, pixels, argument)[0] == from_pil(image)).float().mean() >= 0.985


def test_a_shift_is_a_share_of_the_side_whatever_the_size() -> None:
    for side in (16, 331):
        pixels = torch.zeros(1, 1, side, side, dtype=torch.uint8)
        columns = (apply("TranslateX", pixels, 100.0)[0, 0, 0] == 128).sum()
        assert int(columns) == pytest.approx(side * 100 / 331, abs=0.5)


def test_no_sub_policy_moves_an_image_out_of_sight() -> None:
    farthest = max(
        OPERATORS[name].argument(level, AUTO_CONSTANTS)
        for row in AUTO_POLICY
        for name, _, level in row
        if name.startswith("Translate")
    )
    pixels = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    assert int((apply("TranslateY", pixels, farthest)[0, 0, :, 0] == 0).sum()) == 10


def test_a_cutout_is_a_grey_square_cut_off_at_the_border() -> None:
    pixels = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
    places = torch.tensor([[0.5, 0.25], [0.0, 0.0], [0.999, 0.5]])
    found = apply("Cutout", pixels, 40.0, places)  # 40 of 331 is 3.9 of 32
    middle, corner, right = (image[0].nonzero() for image in found == 128)
    assert [middle.amin(0).tolist(), middle.amax(0).tolist(), len(middle)] == [[5, 13], [10, 18], 36]
    assert [corner.amin(0).tolist(), corner.amax(0).tolist(), len(corner)] == [[0, 0], [2, 2], 9]
    assert [right.amin(0).tolist(), right.amax(0).tolist(), len(right)] == [[13, 28], [18, 31], 24]


def test_the_policy_has_25_rows_and_each_is_what_its_draw_takes() -> None:
    assert len(AUTO_POLICY) == 25
    pixels = photograph(1, 3, 16, 16)
    for number, row in enumerate(AUTO_POLICY):
        draws = torch.full((1, AUTO_DRAWS), 0.7)
        draws[0, 0] = (number + 0.5) / 25
        draws[0, [1, 4]] = 0.0  # both operators, unless their probability is 0
        expected = pixels
        for name, probability, level in row:
            if probability:
                expected = apply(name, expected, OPERATORS[name].argument(level, AUTO_CONSTANTS))
        assert torch.equal(auto_augment(pixels, draws), expected), row


def test_an_operator_is_applied_below_its_probability_and_its_sign_flipped_below_a_half() -> None:
    pixels = photograph(4, 3, 16, 16)
    draws = torch.full((4, AUTO_DRAWS), 0.9999)
    draws[:, 0] = 15.5 / 25  # Rotate 1.0 7, TranslateY 0.8 9
    draws[:, 4] = torch.tensor([0.79, 0.81, 0.81, 0.79])
    draws[:, 2] = torch.tensor([0.6, 0.6, 0.4, 0.6])
    draws[:, 5] = torch.tensor([0.6, 0.6, 0.6, 0.4])
    turned, other = apply("Rotate", pixels, 21.0), apply("Rotate", pixels, -21.0)
    found = auto_augment(pixels, draws)
    assert torch.equal(found[0], apply("TranslateY", turned, 225.0)[0])
    assert torch.equal(found[1], turned[1])
    assert torch.equal(found[2], other[2])
    assert torch.equal(found[3], apply("TranslateY", turned, -225.0)[3])


def test_sub_policies_are_equally_frequent() -> None:
    # Twenty-five rows told apart by what they do to one image where every draw but the first is fixed.
    pixels = photograph(1, 3, 16, 16)
    draws = torch.full((5000, AUTO_DRAWS), 0.3)
    draws[:, 0] = uniform(5000, seed=3)
    found = auto_augment(pixels.expand(5000, -1, -1, -1), draws)
    rows = (draws[:, 0] * 25).long()
    results = Counter(hash(image.numpy().tobytes()) for image in found)
    by_row = {number: hash(found[int((rows == number).nonzero()[0, 0])].numpy().tobytes()) for number in range(25)}
    shares = Counter(by_row.values())  # rows that do the same to it count together
    assert set(results) == set(shares)
    assert len(shares) >= 18
    expected = [5000 / 25 * shares[key] for key in results]
    assert chisquare(list(results.values()), expected).pvalue > 0.001


def test_randaugment_draws_all_16_operators_equally_often_in_every_place() -> None:
    assert rand_draws(2) == 6
    pixels = photograph(1, 3, 16, 16)
    names = list(OPERATORS)
    for number in (0, 7, 15):
        draws = torch.full((1, 6), 0.7)
        draws[0, 0], draws[0, 3] = (number + 0.5) / 16, (15.5 - number) / 16
        expected = pixels
        for name in (names[number], names[15 - number]):
            expected = apply(name, expected, OPERATORS[name].argument(9.0, RAND_CONSTANTS), draws[:, 1:3])
        assert torch.equal(rand_augment(pixels, draws, num_ops=2, magnitude=9.0), expected)
    many = torch.full((4000, 3), 0.7)
    many[:, 0] = uniform(4000, seed=4)
    found = rand_augment(pixels.expand(4000, -1, -1, -1), many, num_ops=1, magnitude=9.0)
    counts = Counter(hash(image.numpy().tobytes()) for image in found)
    assert len(counts) == 16
    assert chisquare(list(counts.values())).pvalue > 0.001


def test_the_largest_draw_takes_the_last_row() -> None:
    pixels = photograph(1, 3, 16, 16)
    draws = torch.full((1, 3), 1 - 2**-24)
    expected = apply("SolarizeAdd", pixels, 99.0)
    assert torch.equal(rand_augment(pixels, draws, num_ops=1, magnitude=9.0), expected)


@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(1, 24),
    channels=st.sampled_from([1, 3]),
    size=st.tuples(st.integers(3, 33), st.integers(3, 33)),
    magnitude=st.floats(0, 10),
)
@settings(deadline=None, max_examples=60)
def test_an_images_result_is_a_function_of_its_own_draws(
    seed: int, batch: int, channels: int, size: tuple[int, int], magnitude: float
) -> None:
    pixels, order = photograph(batch, channels, *size, seed=seed), torch.randperm(batch, generator=torch.Generator())
    auto_draws, draws = uniform(batch, AUTO_DRAWS, seed=seed), uniform(batch, rand_draws(3), seed=seed + 5)
    auto = auto_augment(pixels, auto_draws)
    rand = rand_augment(pixels, draws, num_ops=3, magnitude=magnitude)
    assert torch.equal(auto_augment(pixels[order], auto_draws[order]), auto[order])
    assert torch.equal(rand_augment(pixels[order], draws[order], num_ops=3, magnitude=magnitude), rand[order])
    for part in torch.arange(batch).split(1 + seed % 5):
        assert torch.equal(auto_augment(pixels[part], auto_draws[part]), auto[part])
        assert torch.equal(rand_augment(pixels[part], draws[part], num_ops=3, magnitude=magnitude), rand[part])


def test_the_order_of_pixels_in_memory_changes_nothing() -> None:
    pixels, draws = photograph(64, 3, 32, 32), uniform(64, 7)
    last = pixels.contiguous(memory_format=torch.channels_last)
    assert torch.equal(auto_augment(pixels, draws), auto_augment(last, draws))
    found = [rand_augment(p, draws, num_ops=2, magnitude=9.0) for p in (pixels, last)]
    assert torch.equal(*found)


def test_the_images_given_are_left_as_they_are() -> None:
    pixels, draws = photograph(64, 3, 16, 16), uniform(64, 7)
    before = pixels.clone()
    auto_augment(pixels, draws)
    rand_augment(pixels, draws, num_ops=2, magnitude=10.0)
    assert torch.equal(pixels, before)
