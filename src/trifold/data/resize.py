"""One image cropped and resized to grey levels, with the arithmetic of torchvision, Pillow or TensorFlow 1."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from trifold._torchvision import v2
from trifold.preprocessing import Preprocessing

Levels = UInt8[Tensor, "channels height width"] | Float[Tensor, "channels height width"]
"""Grey levels from 0 to 255: bytes, or float32 as TensorFlow's resize leaves them, which its bicubic may overshoot."""

Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""

TENSORFLOW_PADDING = 32
"""Pixels of border that the published checkpoints' crop leaves out at the resolution (tensorflow/tpu preprocessing.py
before November 2021; since then a share of the resolution)."""

_TORCH = {
    "bilinear": v2.InterpolationMode.BILINEAR,
    "bicubic": v2.InterpolationMode.BICUBIC,
    "nearest": v2.InterpolationMode.NEAREST_EXACT,
}
_PILLOW = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}

_CUBIC = -0.75
"""Coefficient of TensorFlow's legacy cubic (resize_bicubic_op.cc)."""
_CUBIC_STEPS = 1024


def to_levels(image: Image.Image, preprocessing: Preprocessing) -> Levels:
    """The image in the mode, cropped and resized to the resolution, before it is normalised."""
    side = preprocessing.resolution
    if preprocessing.crop != "resize":
        return resized(image, central_box(image.width, image.height, preprocessing), (side, side), preprocessing)
    width, height = shorter_side_resized(image.width, image.height, preprocessing.resize)
    whole = resized(image, (0, 0, image.width, image.height), (height, width), preprocessing)
    left, top = _centred(width, side), _centred(height, side)
    return whole[:, top : top + side, left : left + side]


def central_box(width: int, height: int, preprocessing: Preprocessing) -> Box:
    """What the crops "square", "tensorflow" and "whole" keep of an image of this size."""
    if preprocessing.crop == "whole":
        return 0, 0, width, height
    shorter = min(width, height)
    if preprocessing.crop == "square":
        return _centred(width, shorter), _centred(height, shorter), shorter, shorter
    share = preprocessing.resolution / (preprocessing.resolution + TENSORFLOW_PADDING)
    side = max(1, int(np.float32(share) * np.float32(shorter)))  # in float32, which now and then gives a pixel less
    return (width - side + 1) // 2, (height - side + 1) // 2, side, side


def shorter_side_resized(width: int, height: int, size: int) -> tuple[int, int]:
    """Width and height with the shorter one of this size and the longer one rounded down (torchvision, timm)."""
    longer = int(size * max(width, height) / min(width, height))
    return (size, longer) if width <= height else (longer, size)


def _centred(length: int, part: int) -> int:
    """Where a central part begins; an odd rest is rounded half to even (torchvision's center_crop, timm)."""
    return round((length - part) / 2)


def resized(image: Image.Image, box: Box, size: tuple[int, int], preprocessing: Preprocessing) -> Levels:
    """The box of the image, in the mode, resized to so many rows and columns by the preprocessing's resizer."""
    left, top, width, height = box
    image, interpolation = image.convert(preprocessing.mode), preprocessing.interpolation
    if preprocessing.resizer == "pillow":
        part = image.crop((left, top, left + width, top + height))
        return v2.functional.pil_to_tensor(part.resize(size[::-1], _PILLOW[interpolation]))
    pixels = v2.functional.pil_to_tensor(image)[:, top : top + height, left : left + width]
    if preprocessing.resizer == "tensorflow":
        return _LEGACY[interpolation](pixels.float(), size)
    return v2.functional.resize(
        pixels, list(size), interpolation=_TORCH[interpolation], antialias=preprocessing.antialias
    )


def legacy_bicubic(
    levels: Float[Tensor, "channels rows columns"], size: tuple[int, int]
) -> Float[Tensor, "channels height width"]:
    """TF1's resize_bicubic, align_corners false: no half-pixel centres, edges repeated (resize_bicubic_op.cc)."""
    return _cubic_rows(_cubic_rows(levels, size[0]).mT, size[1]).mT.contiguous()


def legacy_bilinear(
    levels: Float[Tensor, "channels rows columns"], size: tuple[int, int]
) -> Float[Tensor, "channels height width"]:
    """TF1's resize_bilinear, align_corners false: no half-pixel centres, edges repeated (resize_bilinear_op.cc)."""
    left, share = _places(levels.shape[2], size[1])
    right = (left + 1).clamp(max=levels.shape[2] - 1)
    levels = levels[:, :, left] + (levels[:, :, right] - levels[:, :, left]) * share
    above, share = _places(levels.shape[1], size[0])
    below = (above + 1).clamp(max=levels.shape[1] - 1)
    return levels[:, above] + (levels[:, below] - levels[:, above]) * share[:, None]


def legacy_nearest(
    levels: Float[Tensor, "channels rows columns"], size: tuple[int, int]
) -> Float[Tensor, "channels height width"]:
    """TF1's resize_nearest_neighbor, align_corners false: the pixel above and to the left."""
    rows, columns = (_places(*lengths)[0] for lengths in zip(levels.shape[1:], size, strict=True))
    return levels[:, rows][:, :, columns]


_LEGACY = {"bilinear": legacy_bilinear, "bicubic": legacy_bicubic, "nearest": legacy_nearest}


def _places(length: int, size: int) -> tuple[Int[Tensor, " size"], Float[Tensor, " size"]]:
    """Where each of `size` pixels lies among `length`: the pixel before it and the share of the way to the next."""
    scale = torch.tensor(length, dtype=torch.float32) / size
    place = torch.arange(size, dtype=torch.float32) * scale
    before = place.floor()
    return before.long(), place - before


def _cubic_rows(levels: Float[Tensor, "channels rows columns"], size: int) -> Float[Tensor, "channels size columns"]:
    """So many rows, each made of four by weights that are looked up in steps of 1/1024 pixel."""
    rows = levels.shape[1]
    before, share = _places(rows, size)
    indices = (before + torch.arange(-1, 3)[:, None]).clamp(0, rows - 1)
    step = (share * _CUBIC_STEPS).round().long()
    near, far = _cubic_table()
    rest = _CUBIC_STEPS - step
    terms = levels[:, indices] * torch.stack([far[step], near[step], near[rest], far[rest]])[:, :, None]
    return terms[:, 0] + terms[:, 1] + terms[:, 2] + terms[:, 3]  # in TensorFlow's order, to have its last bits


def _cubic_table() -> tuple[Float[Tensor, " steps"], Float[Tensor, " steps"]]:
    """The weight of a pixel by its distance: from 0 to 1 pixel, then from 1 to 2, in steps of 1/1024."""
    near = torch.arange(_CUBIC_STEPS + 1, dtype=torch.float64) / _CUBIC_STEPS
    far, a = near + 1, _CUBIC
    return (
        (((a + 2) * near - (a + 3)) * near * near + 1).float(),
        (((a * far - 5 * a) * far + 8 * a) * far - 4 * a).float(),
    )
