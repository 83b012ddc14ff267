"""Random shifts, turns, zooms and mirroring of a whole batch at once; the randomness comes in as numbers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

NUM_DRAWS = 5
"""Uniform numbers that one image uses: shift x, shift y, turn, zoom, mirror."""


def augment(
    images: Float[Tensor, "batch channels height width"],
    draws: Float[Tensor, "batch draws"],
    *,
    shift: float = 0.0,
    rotation: float = 0.0,
    zoom: float = 0.0,
    horizontal_flip: bool = False,
) -> Float[Tensor, "batch channels height width"]:
    """Each image shifted, turned and zoomed by its own amounts, sampled bilinearly; the border is repeated outward.

    draws: numbers in [0, 1), five an image; 0.5 everywhere and no flip leaves images as they are.
    shift: at most this share of the side, to either side. rotation: at most so many degrees, either way.
    zoom: at most this share larger or smaller. horizontal_flip: mirror where the fifth draw is under 0.5.

    (transforms v2 draws one transform for a whole batch; here every image has its own.)
    """
    if not (shift or rotation or zoom or horizontal_flip):
        return images
    move_x, move_y, turn, scale = ((2 * draws[:, i] - 1) for i in range(4))
    angle = turn * (rotation * math.pi / 180)
    size = 1 + scale * zoom
    cos, sin = torch.cos(angle) * size, torch.sin(angle) * size
    mirror = torch.where(draws[:, 4] < 0.5, -1.0, 1.0) if horizontal_flip else torch.ones_like(cos)
    # affine_grid counts from -1 to 1, so a shift by the whole side is 2.
    rows = torch.stack([cos * mirror, -sin, 2 * shift * move_x, sin * mirror, cos, 2 * shift * move_y], dim=1)
    grid = F.affine_grid(rows.view(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
