"""The sixteen operators of AutoAugment and RandAugment, on batches of bytes with an argument an image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from trifold._torchvision import v2

FILL = 128
"""The value of pixels that come into sight from outside an image, and of a cutout."""

CONSTANTS_SIDE = 331
"""The side in pixels that distances are meant for; they grow and shrink with it.

The original has the same pixels at any size, 224 to 800: at 224, TranslateY at AutoAugment's level 9 moves an image by
225, out of sight. torchvision's own policies take their distances as shares of 331 pixels, too.
"""

Pixels: TypeAlias = UInt8[Tensor, "images channels height width"]
Numbers: TypeAlias = Float[Tensor, "images 6"]
Places: TypeAlias = Float[Tensor, "images 2"]
Matrix: TypeAlias = tuple[float, float, float, float, float, float]


class Constants(NamedTuple):
    """Distances at level 10, in pixels of a side of CONSTANTS_SIDE: a shift, and half of a cutout's side."""

    translate: float
    cutout: float


AUTO_CONSTANTS = Constants(translate=250, cutout=100)
RAND_CONSTANTS = Constants(translate=100, cutout=40)


class Operator(NamedTuple):
    """argument: from a level of 0 to 10. kernel: (pixels, six numbers an image, two draws an image) to pixels.

    matrix: where the kernel moves pixels, its six numbers from (argument, height, width); the argument's sign is then
    flipped with probability 1/2. Elsewhere the argument is the first of the six.
    """

    argument: Callable[[int | float, Constants], float]
    kernel: Callable[[Pixels, Numbers, Places], Pixels]
    matrix: Callable[[float, int, int], Matrix] | None = None


def numbers(operator: Operator, argument: float, *, height: int, width: int) -> tuple[Matrix, Matrix]:
    """The six numbers that the operator's kernel takes for an argument, and those for it with the sign flipped."""
    if operator.matrix is None:
        six = (argument, 0.0, 0.0, 0.0, 0.0, 0.0)
        return six, six
    return operator.matrix(argument, height, width), operator.matrix(-argument, height, width)


def _first(values: Numbers) -> Float[Tensor, "images 1 1 1"]:
    """The first number of each image, shaped to meet its pixels."""
    return values[:, :1, None, None]


def _blend(degenerate: Tensor, pixels: Pixels, factors: Numbers) -> Pixels:
    """From a degenerate image (factor 0) through the image (1) and on, cut to a byte and rounded down, as Pillow does.

    One operation after another: a fused one could round differently from place to place in memory.
    """
    change = (pixels.float() - degenerate) * _first(factors)
    return change.add_(degenerate).clamp_(0, 255).to(torch.uint8)


def _grey(pixels: Pixels) -> UInt8[Tensor, "images 1 height width"]:
    """Luma in whole numbers, as Pillow counts it, so that a grey pixel stays as it is."""
    if pixels.shape[1] == 1:
        return pixels
    red, green, blue = pixels.int().split(1, dim=1)
    luma: Tensor = red * 19595 + green * 38470 + blue * 7471 + 32768
    return luma.bitwise_right_shift(16).to(torch.uint8)


def _color(pixels: Pixels, factors: Numbers, places: Places) -> Pixels:
    return pixels if pixels.shape[1] == 1 else _blend(_grey(pixels).float(), pixels, factors)


def _contrast(pixels: Pixels, factors: Numbers, places: Places) -> Pixels:
    grey = _grey(pixels)
    count = grey.shape[2] * grey.shape[3]
    # Summed as whole numbers, whose order does not matter; rounded as Pillow rounds.
    mean = (2 * grey.sum(dim=(1, 2, 3), keepdim=True, dtype=torch.int64) + count).div(2 * count, rounding_mode="floor")
    return _blend(mean.float(), pixels, factors)


def _brightness(pixels: Pixels, factors: Numbers, places: Places) -> Pixels:
    return _blend(torch.zeros((), device=pixels.device), pixels, factors)


def _sharpness(pixels: Pixels, factors: Numbers, places: Places) -> Pixels:
    # Thirteenths are never halves, so the smoothed image is the same bytes however its sums are ordered.
    return _blend(v2.functional.adjust_sharpness(pixels, 0.0).float(), pixels, factors)


def _autocontrast(pixels: Pixels, arguments: Numbers, places: Places) -> Pixels:
    return v2.functional.autocontrast(pixels)


def _equalize(pixels: Pixels, arguments: Numbers, places: Places) -> Pixels:
    return v2.functional.equalize(pixels)


def _invert(pixels: Pixels, arguments: Numbers, places: Places) -> Pixels:
    return v2.functional.invert(pixels)


def _solarize(pixels: Pixels, thresholds: Numbers, places: Places) -> Pixels:
    return torch.where(pixels >= _first(thresholds).short(), ~pixels, pixels)


def _solarize_add(pixels: Pixels, amounts: Numbers, places: Places) -> Pixels:
    # Below 128 plus at most 110 is still a byte.
    return torch.where(pixels < 128, pixels + _first(amounts).to(torch.uint8), pixels)


def _posterize(pixels: Pixels, bits: Numbers, places: Places) -> Pixels:
    # TensorFlow shifts a byte by 7 at most, so that 0 bits keep the highest one.
    dropped = 8 - _first(bits).int().clamp(1, 8)
    return pixels & (255 << dropped).to(torch.uint8)


def _cutout(pixels: Pixels, halves: Numbers, places: Places) -> Pixels:
    inside = torch.ones((), dtype=torch.bool, device=pixels.device)
    for axis, centre in ((2, places[:, 1]), (3, places[:, 0])):
        side = pixels.shape[axis]
        half = (halves[:, :1] * side / CONSTANTS_SIDE).floor()
        position = torch.arange(side, device=pixels.device) - (centre * side).floor()[:, None]
        within = (position >= -half) & (position < half)
        inside = inside & (within[:, None, :, None] if axis == 2 else within[:, None, None, :])
    return pixels.masked_fill(inside, FILL)


def _affine(pixels: Pixels, matrices: Numbers, places: Places) -> Pixels:
    """Every pixel taken from the nearest of where its centre comes from, or FILL: as Image.transform(AFFINE) does.

    matrices: rows (a, b, c, d, e, f) of x' = a x + b y + c and y' = d x + e y + f; pixels' centres lie at halves.
    """
    height, width = pixels.shape[2:]
    across, down = (torch.arange(side, device=pixels.device) + 0.5 for side in (width, height))
    x, y = (
        (a * across + c)[:, None, :].add((b * down)[:, :, None]).floor_()
        for a, b, c in (matrices[:, :3].split(1, dim=1), matrices[:, 3:].split(1, dim=1))
    )
    outside = (x < 0) | (x >= width) | (y < 0) | (y >= height)
    # One pixel of FILL after an image's own is where those outside are taken from.
    index = y.long().mul_(width).add_(x.long()).masked_fill_(outside, height * width).view(len(pixels), 1, -1)
    source = torch.nn.functional.pad(pixels.flatten(2), (0, 1), value=FILL)
    return source.gather(2, index.expand(-1, pixels.shape[1], -1)).view(pixels.shape)


def _shear_x(amount: float, height: int, width: int) -> Matrix:
    return 1.0, amount, 0.0, 0.0, 1.0, 0.0


def _shear_y(amount: float, height: int, width: int) -> Matrix:
    return 1.0, 0.0, 0.0, amount, 1.0, 0.0


def _translate_x(amount: float, height: int, width: int) -> Matrix:
    return 1.0, 0.0, amount * width / CONSTANTS_SIDE, 0.0, 1.0, 0.0


def _translate_y(amount: float, height: int, width: int) -> Matrix:
    return 1.0, 0.0, 0.0, 0.0, 1.0, amount * height / CONSTANTS_SIDE


def _rotate(degrees: float, height: int, width: int) -> Matrix:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = width / 2, height / 2
    return cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y


def _nothing(level: int | float, constants: Constants) -> float:
    return 0.0


def _degrees(level: int | float, constants: Constants) -> float:
    return 30 * (level / 10)


def _shear(level: int | float, constants: Constants) -> float:
    return 0.3 * (level / 10)


def _distance(level: int | float, constants: Constants) -> float:
    return constants.translate * (level / 10)


def _half(level: int | float, constants: Constants) -> float:
    return float(int(constants.cutout * (level / 10)))


def _factor(level: int | float, constants: Constants) -> float:
    return 1.8 * (level / 10) + 0.1


def _bits(level: int | float, constants: Constants) -> float:
    return float(int(4 * (level / 10)))


def _threshold(level: int | float, constants: Constants) -> float:
    return float(int(256 * (level / 10)))


def _amount(level: int | float, constants: Constants) -> float:
    return float(int(110 * (level / 10)))


OPERATORS: dict[str, Operator] = {
    "AutoContrast": Operator(_nothing, _autocontrast),
    "Equalize": Operator(_nothing, _equalize),
    "Invert": Operator(_nothing, _invert),
    "Rotate": Operator(_degrees, _affine, _rotate),
    "Posterize": Operator(_bits, _posterize),
    "Solarize": Operator(_threshold, _solarize),
    "Color": Operator(_factor, _color),
    "Contrast": Operator(_factor, _contrast),
    "Brightness": Operator(_factor, _brightness),
    "Sharpness": Operator(_factor, _sharpness),
    "ShearX": Operator(_shear, _affine, _shear_x),
    "ShearY": Operator(_shear, _affine, _shear_y),
    "TranslateX": Operator(_distance, _affine, _translate_x),
    "TranslateY": Operator(_distance, _affine, _translate_y),
    "Cutout": Operator(_half, _cutout),
    "SolarizeAdd": Operator(_amount, _solarize_add),
}
"""The operators in RandAugment's order. Contrast has the image's mean, where the original has its pixels over 256."""
