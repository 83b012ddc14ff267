"""Crops, shifts, turns, zooms and mirroring: against torch's own grid, torchvision's crops and numbers kept."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from torch import Tensor

from trifold._torchvision import v2
from trifold.data.augment import augment, crop_boxes, crop_pixels, shift_crop

KEPT = [
    [
        [3.95999479, 3.49173355, 3.08367682, 3.68490458],
        [8.38826084, 7.91999865, 7.45173693, 7.96286297],
        [12.8165245, 12.3482628, 11.8800011, 12],
        [14.5296946, 13.4602051, 12.3907156, 12],
    ],
    [
        [16.9309616, 17.7689171, 18.6068707, 19],
        [18.4448872, 19.5172234, 20.5895596, 21.2756653],
        [21.7381058, 22.8104401, 23.8827782, 24.6274796],
        [25.0313263, 26.1036606, 27.1759987, 27.9792957],
    ],
]
"""By the first version of `augment`, through F.affine_grid."""


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def moved(images: Tensor, draws: Tensor, crop: Tensor | None = None) -> Tensor:
    """By augment, with all that it can do."""
    return augment(images, draws, shift=0.1, rotation=10.0, zoom=0.1, horizontal_flip=True, crop=crop)


def reference(images: Tensor, draws: Tensor, crop: Tensor | None = None) -> Tensor:
    """What `moved` should be, by F.affine_grid; a crop is one more matrix, from the left."""
    rows = []
    for image in draws:
        move_x, move_y, turn, scale = (2 * image[:4] - 1).unbind()
        angle, size = turn * (10 * math.pi / 180), 1 + scale * 0.1
        cos, sin = torch.cos(angle) * size, torch.sin(angle) * size
        mirror = -1.0 if image[4] < 0.5 else 1.0
        rows.append(torch.stack([cos * mirror, -sin, 0.2 * move_x, sin * mirror, cos, 0.2 * move_y]).view(2, 3))
    matrix = torch.stack(rows)
    if crop is not None:
        box = torch.zeros(len(crop), 2, 3)
        box[:, 0, 0], box[:, 1, 1] = crop[:, 2], crop[:, 3]
        box[:, :, 2] = 2 * crop[:, :2] + crop[:, 2:] - 1
        last = torch.tensor([0.0, 0.0, 1.0]).expand(len(crop), 1, 3)
        matrix = box @ torch.cat([matrix, last], dim=1)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


@pytest.mark.parametrize(("batch", "height", "width"), [(128, 32, 32), (3, 33, 17), (1, 4, 4), (5, 64, 224)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_resampling_is_that_of_torchs_affine_grid_to_the_last_bit(
    batch: int, height: int, width: int, memory_format: torch.memory_format
) -> None:
    images = uniform(batch, 3, height, width).contiguous(memory_format=memory_format)
    draws = uniform(batch, 5, seed=1)
    found = moved(images, draws)
    assert torch.equal(found, reference(images, draws))


def test_resampling_gives_the_numbers_it_always_gave() -> None:
    images = torch.arange(2 * 4 * 4, dtype=torch.float32).view(2, 1, 4, 4)
    draws = torch.tensor([[0.1, 0.9, 0.3, 0.7, 0.4], [0.8, 0.2, 0.6, 0.1, 0.6]])
    found = augment(images, draws, shift=0.25, rotation=20.0, zoom=0.2, horizontal_flip=True)
    assert torch.equal(found[:, 0], torch.tensor(KEPT))


def test_a_mirror_alone_moves_pixels_exactly_and_keeps_their_order_in_memory() -> None:
    images = uniform(4, 3, 7, 6).contiguous(memory_format=torch.channels_last)
    draws = torch.full((4, 5), 0.5)
    draws[::2, 4] = 0.49
    found = augment(images, draws, horizontal_flip=True)
    assert torch.equal(found[::2], images[::2].flip(3))
    assert torch.equal(found[1::2], images[1::2])
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_a_crop_is_the_box_stretched_over_the_image() -> None:
    images = uniform(2, 3, 8, 8)
    boxes = torch.tensor([[0.25, 0.5, 0.5, 0.25], [0.0, 0.0, 1.0, 1.0]])
    found = augment(images, torch.full((2, 5), 0.5), crop=boxes)
    # Away from the box's edge, where the original's neighbouring pixels come in.
    expected = F.interpolate(images[:1, :, 4:6, 2:6], size=(8, 8), mode="bilinear", align_corners=False)
    assert torch.allclose(found[:1, :, 2:6, 1:7], expected[:, :, 2:6, 1:7], atol=1e-6)
    assert torch.allclose(found[1], images[1], atol=1e-6)


def test_a_crop_composes_with_the_other_amounts_as_matrices_do() -> None:
    images, draws = uniform(6, 3, 16, 16), uniform(6, 5, seed=1)
    boxes = crop_boxes(uniform(6, 4, seed=2), least_area=0.3)
    found = moved(images, draws, boxes)
    assert torch.allclose(found, reference(images, draws, boxes), atol=2e-5)


def test_a_mirrored_crop_is_the_mirror_image_of_the_crop() -> None:
    images, boxes = uniform(2, 1, 9, 9), crop_boxes(uniform(2, 4, seed=2), least_area=0.3)
    mirrored, straight = (torch.full((2, 5), draw) for draw in (0.1, 0.9))
    plain = augment(images, straight, horizontal_flip=True, crop=boxes)
    assert torch.allclose(augment(images, mirrored, horizontal_flip=True, crop=boxes), plain.flip(3), atol=1e-6)


@given(least_area=st.floats(0.05, 1), seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=50)
def test_boxes_lie_within_the_image_and_have_at_least_the_area(least_area: float, seed: int) -> None:
    boxes = crop_boxes(uniform(64, 4, seed=seed), least_area=least_area)
    assert float(boxes.min()) >= 0
    assert float((boxes[:, :2] + boxes[:, 2:]).max()) <= 1 + 1e-6
    area, aspect = boxes[:, 2] * boxes[:, 3], boxes[:, 2] / boxes[:, 3]
    assert float(area.min()) >= least_area - 1e-5
    assert float(aspect.min()) >= 3 / 4 - 1e-5
    assert float(aspect.max()) <= 4 / 3 + 1e-5


def test_least_area_1_takes_the_whole_image() -> None:
    boxes = crop_boxes(uniform(9, 4), least_area=1.0)
    assert torch.allclose(boxes, torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(9, 4), atol=1e-6)
    assert crop_pixels(40, 30, draws=(0.3, 0.9, 0.9, 0.9), least_area=1.0) == (0, 0, 40, 30)


def test_a_boxs_area_and_aspect_are_uniform_in_their_draws() -> None:
    draws = torch.tensor([[0.0, 0.5, 0.5, 0.0], [0.5, 0.0, 0.0, 0.99], [0.5, 1.0, 0.0, 0.0], [0.1, 1.0, 0.0, 0.0]])
    boxes = crop_boxes(draws, least_area=0.2)
    expected = [
        [0.0, 0.0, 1.0, 1.0],
        [0.0, 0.99 * (1 - math.sqrt(0.8)), math.sqrt(0.45), math.sqrt(0.8)],
        [0.0, 0.0, math.sqrt(0.8), math.sqrt(0.45)],
        [0.0, 0.0, 1.0, 0.92],  # 0.92 of the area at 4:3 would be 1.107 wide
    ]
    assert torch.allclose(boxes, torch.tensor(expected), atol=1e-6)


def test_boxes_that_fit_are_distributed_as_torchvisions() -> None:
    # Areas up to 3/4 always fit, so that torchvision never draws again; a 1000-pixel side makes its rounding small.
    transform = v2.RandomResizedCrop(8, scale=(0.25, 0.75))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        rows = [transform.make_params([torch.empty(1, 1000, 1000)]) for _ in range(2000)]
    theirs = torch.tensor([[row[key] / 1000 for key in ("left", "top", "width", "height")] for row in rows])
    # The same rule with areas from 0.25 to 0.75: draws of the area in [1/3, 1) of ours.
    draws = uniform(20_000, 4)
    draws[:, 0] = 1 / 3 + draws[:, 0] * 2 / 3
    ours = crop_boxes(draws, least_area=0.25)
    for column in range(4):
        assert ks_2samp(ours[:, column].numpy(), theirs[:, column].numpy()).pvalue > 0.001


@given(
    width=st.integers(4, 500),
    height=st.integers(4, 500),
    draws=st.tuples(*[st.floats(0, 1, exclude_max=True)] * 4),
    least_area=st.floats(0.05, 1),
)
def test_a_box_in_pixels_lies_within_its_image(
    width: int, height: int, draws: tuple[float, float, float, float], least_area: float
) -> None:
    left, top, box_width, box_height = crop_pixels(width, height, draws=draws, least_area=least_area)
    assert 0 <= left < left + box_width <= width
    assert 0 <= top < top + box_height <= height
    # Within half a pixel's rounding of either side.
    assert (box_width + 0.5) / (box_height - 0.5) >= 3 / 4
    assert (box_width - 0.5) / (box_height + 0.5) <= 4 / 3


@given(draws=st.tuples(*[st.floats(0, 0.999)] * 4), least_area=st.floats(0.05, 1))
def test_both_rules_agree_on_a_square_image(draws: tuple[float, float, float, float], least_area: float) -> None:
    pixels = crop_pixels(1000, 1000, draws=draws, least_area=least_area)
    shares = crop_boxes(torch.tensor([draws]), least_area=least_area)[0].tolist()
    assert all(abs(p / 1000 - s) <= 0.0021 for p, s in zip(pixels, shares, strict=True))


def test_a_box_in_a_long_image_is_at_most_4_to_3_and_as_high_as_the_image() -> None:
    assert crop_pixels(300, 60, draws=(0.0, 0.5, 0.0, 0.5), least_area=0.5) == (0, 0, 80, 60)
    assert crop_pixels(60, 300, draws=(0.0, 0.5, 0.0, 0.999), least_area=0.5) == (0, 220, 60, 80)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("horizontal_flip", [False, True])
def test_a_shift_crop_is_torchvisions_at_the_same_place(
    memory_format: torch.memory_format, horizontal_flip: bool
) -> None:
    pixels = (uniform(81, 3, 8, 8) * 256).to(torch.uint8).contiguous(memory_format=memory_format)
    places = torch.cartesian_prod(torch.arange(9), torch.arange(9))  # every place there is
    draws = torch.cat([(places + 0.5) / 9, uniform(81, 1, seed=1)], dim=1)
    found = shift_crop(pixels, draws, pad=4, horizontal_flip=horizontal_flip)
    transform = v2.RandomCrop(8, padding=4)
    for image, (left, top), draw, result in zip(pixels, places.tolist(), draws[:, 2], found, strict=True):
        params = {"needs_crop": True, "top": top, "left": left, "height": 8, "width": 8, "needs_pad": True}
        expected = transform.transform(image, {**params, "padding": [4, 4, 4, 4]})
        mirrored = v2.functional.horizontal_flip(expected) if horizontal_flip and draw < 0.5 else expected
        assert torch.equal(result, mirrored)
    assert found.is_contiguous(memory_format=memory_format)


def test_a_shift_crops_largest_draw_is_its_last_place() -> None:
    pixels = (uniform(2, 1, 5, 5) * 256).to(torch.uint8)
    draws = torch.tensor([[0.0, 0.0, 0.9], [1 - 2**-24, 1 - 2**-24, 0.9]])
    first, last = shift_crop(pixels, draws, pad=2, horizontal_flip=True)
    assert torch.equal(first, F.pad(pixels[0, :, :3, :3], (2, 0, 2, 0)))
    assert torch.equal(last, F.pad(pixels[1, :, 2:, 2:], (0, 2, 0, 2)))
    assert shift_crop(pixels, draws, pad=0, horizontal_flip=False) is pixels


def test_an_image_is_augmented_alike_in_any_batch() -> None:
    images, draws = uniform(13, 3, 17, 19), uniform(13, 5, seed=1)
    boxes = crop_boxes(uniform(13, 4, seed=2), least_area=0.3)
    whole = moved(images, draws, boxes)
    single = [moved(images[i : i + 1], draws[i : i + 1], boxes[i : i + 1]) for i in range(13)]
    assert torch.equal(whole, torch.cat(single))
