"""Random crops, shifts, turns, zooms and mirroring of a whole batch at once; the randomness comes in as numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor

NUM_DRAWS = 5
"""Uniform numbers that one image uses in `augment`: shift x, shift y, turn, zoom, mirror."""

CROP_DRAWS = 4
"""Uniform numbers that one image uses in `crop_boxes` and `crop_pixels`: area, aspect, left, top."""

SHIFT_CROP_DRAWS = 3
"""Uniform numbers that one image uses in `shift_crop`: left, top, mirror."""

LOG_ASPECT = math.log(4 / 3)
"""A crop's width over its height lies between 3/4 and 4/3."""


def augment(
    images: Float[Tensor, "batch channels height width"],
    draws: Float[Tensor, "batch draws"],
    *,
    shift: float = 0.0,
    rotation: float = 0.0,
    zoom: float = 0.0,
    horizontal_flip: bool = False,
    crop: Float[Tensor, "batch 4"] | None = None,
) -> Float[Tensor, "batch channels height width"]:
    """Each image cropped, shifted, turned and zoomed by its own amounts, sampled bilinearly; the border is repeated.

    draws: numbers in [0, 1), five an image; 0.5 everywhere and no flip leaves images as they are.
    shift: at most this share of the side, to either side. rotation: at most so many degrees, either way.
    zoom: at most this share larger or smaller. horizontal_flip: mirror where the fifth draw is under 0.5; on its own
    it moves pixels without sampling them. crop: boxes as `crop_boxes` makes them, stretched over the whole image; the
    other amounts move the view from there, so that what lies around a box comes into sight.

    (transforms v2 draws one transform for a whole batch; here every image has its own.)
    """
    if not (shift or rotation or zoom or crop is not None):
        return _mirrored(images, draws[:, 4] < 0.5) if horizontal_flip else images
    move_x, move_y, turn, scale = ((2 * draws[:, i] - 1) for i in range(4))
    angle = turn * (rotation * math.pi / 180)
    size = 1 + scale * zoom
    cos, sin = torch.cos(angle) * size, torch.sin(angle) * size
    mirror = torch.where(draws[:, 4] < 0.5, -1.0, 1.0) if horizontal_flip else torch.ones_like(cos)
    # A grid counts from -1 to 1, so a shift by the whole side is 2.
    rows = torch.stack([cos * mirror, -sin, 2 * shift * move_x, sin * mirror, cos, 2 * shift * move_y], dim=1)
    matrix = rows.view(-1, 2, 3)
    if crop is not None:
        matrix = matrix * crop[:, 2:, None]
        # A box's centre in -1 to 1: twice its (left + side / 2), less 1.
        matrix[:, :, 2] += 2 * crop[:, :2] + crop[:, 2:] - 1
    grid = _grid(matrix, images.shape[2], images.shape[3])
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _mirrored(
    images: Shaped[Tensor, "batch channels height width"], mirror: Bool[Tensor, " batch"]
) -> Shaped[Tensor, "batch channels height width"]:
    """The images, turned left to right where mirror says so."""
    return torch.where(mirror[:, None, None, None], images.flip(3), images)


def _grid(matrix: Float[Tensor, "batch 2 3"], height: int, width: int) -> Float[Tensor, "batch height width 2"]:
    """What F.affine_grid(align_corners=False) returns, to the last bit on a CPU, in a tenth of its time.

    It multiplies a matrix of three columns; here x's and y's shares are lines, added to each other once.
    """
    x, y = (
        torch.linspace(-1, 1, side, dtype=matrix.dtype, device=matrix.device) * (side - 1) / side
        for side in (width, height)
    )
    along, down = matrix[:, :, 0, None] * x, matrix[:, :, 1, None] * y
    return (along[:, :, None, :] + down[:, :, :, None] + matrix[:, :, 2, None, None]).permute(0, 2, 3, 1)


def crop_boxes(draws: Float[Tensor, "batch 4"], *, least_area: float) -> Float[Tensor, "batch 4"]:
    """Boxes (left, top, width, height) in shares of a square image's side, all within it.

    A box's share of the area is uniform in [least_area, 1], the logarithm of its aspect uniform from 3/4 to 4/3, its
    place uniform: torchvision's RandomResizedCrop, which draws again where a side comes out above 1. Here that side is
    clipped to 1 and the other one keeps the area, so least_area 1 gives the whole image.
    """
    area = 1 - (1 - least_area) * draws[:, 0]
    aspect = torch.exp((2 * draws[:, 1] - 1) * LOG_ASPECT).clamp(area, 1 / area)
    sides = torch.stack([torch.sqrt(area * aspect), torch.sqrt(area / aspect)], dim=1).clamp(max=1)
    return torch.cat([draws[:, 2:] * (1 - sides), sides], dim=1)


def crop_pixels(width: int, height: int, *, draws: Sequence[float], least_area: float) -> tuple[int, int, int, int]:
    """A box (left, top, width, height) in whole pixels within an image of any aspect, by the rule of `crop_boxes`.

    draws: four numbers in [0, 1). Where a box does not fit, its aspect moves as far as needed but stays between 3/4 and
    4/3; where that is not enough, in a long image, the box shrinks to fit. (torchvision draws again, ten times, then
    takes the central one of the largest such boxes; this one's place is random.)
    """
    area = width * height * (1 - (1 - least_area) * draws[0])
    aspect = math.exp((2 * draws[1] - 1) * LOG_ASPECT)
    aspect = min(max(aspect, area / height**2), width**2 / area)
    aspect = min(max(aspect, 3 / 4), 4 / 3)
    across, down = math.sqrt(area * aspect), math.sqrt(area / aspect)
    fit = min(1.0, width / across, height / down)
    box_width = min(width, max(1, round(across * fit)))
    box_height = min(height, max(1, round(down * fit)))
    return int(draws[2] * (width - box_width + 1)), int(draws[3] * (height - box_height + 1)), box_width, box_height


def shift_crop(
    pixels: UInt8[Tensor, "batch channels height width"],
    draws: Float[Tensor, "batch 3"],
    *,
    pad: int,
    horizontal_flip: bool,
) -> UInt8[Tensor, "batch channels height width"]:
    """Each image padded by so many zeros all round, then cropped to its size at a place of its own; no resampling.

    draws: numbers in [0, 1): left edge, top edge, mirror (where under 0.5, and horizontal_flip). pad 0 crops nothing.
    """
    height, width = pixels.shape[2:]
    if pad:
        corner = (draws[:, :2] * (2 * pad + 1)).long().clamp(max=2 * pad)
        batch = torch.arange(len(pixels), device=pixels.device)
        # A view of every crop that there is; indexing copies only those asked for.
        crops = F.pad(pixels, (pad,) * 4).unfold(2, height, 1).unfold(3, width, 1)
        pixels = crops[batch, :, corner[:, 1], corner[:, 0]]
    return _mirrored(pixels, draws[:, 2] < 0.5) if horizontal_flip else pixels
