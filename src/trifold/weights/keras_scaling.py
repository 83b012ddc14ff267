"""What Keras' networks do to images before their first convolution, as mean and standard deviation.

The layers stand in the model's description, Normalization's numbers there or among the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Which keras.applications' EfficientNet for weights="imagenet" has as variances, with a Rescaling by the inverse of
their roots after it (keras/src/applications/efficientnet.py)."""

_NEUTRAL = ("InputLayer", "ZeroPadding2D", "Resizing", "CenterCrop", "Dropout", "Random")
"""How the names of layers begin that may stand before the first convolution and scale nothing."""

Numbers = tuple[float, ...]


class Scaling(NamedTuple):
    """mean and std of pixel values in [0, 1], None if nothing says so; batch norm's numbers, as torch counts them."""

    mean: Numbers | None = None
    std: Numbers | None = None
    bn_eps: float = 1e-3
    bn_momentum: float = 0.01


def scaling(model: Any, stored: Mapping[str, Mapping[str, Tensor]]) -> Scaling:
    """What a model does to images with values from 0 to 255.

    model: its description, from JSON, or None. stored: mean and variance of Normalization layers by the layers' names.

    Raises what damaged JSON makes of it: TypeError, LookupError, AttributeError, ValueError.
    """
    layers = [] if model is None else list(_layers(model))
    statistics = {name: (_numbers(one["mean"]), _numbers(one["variance"])) for name, one in stored.items()}
    if layers:
        scaled = _composed(layers, statistics)
    else:
        scaled = _told(*next(iter(statistics.values()))) if len(statistics) == 1 else Scaling()
    for layer in layers:
        if layer["class_name"] == "BatchNormalization":
            own = layer["config"]
            return scaled._replace(
                bn_eps=float(own.get("epsilon", 1e-3)), bn_momentum=round(1 - float(own.get("momentum", 0.99)), 12)
            )
    return scaled


def _layers(model: Any) -> Iterator[dict[str, Any]]:
    """Every layer of a description, those of models within it in their place."""
    for layer in model["config"].get("layers", ()):
        if "layers" in layer["config"]:
            yield from _layers(layer)
        else:
            yield layer


def _told(mean: Numbers, variance: Numbers) -> Scaling:
    """Without a description: EfficientNet's Normalization comes after a division by 255.

    ImageNet's standard deviations in place of variances are meant as what they are: no variance of values in [0, 1]
    is above 0.25, and theirs would be of images that are black and white only.
    """
    if len(variance) == 3 and all(abs(a - b) < 1e-6 for a, b in zip(variance, IMAGENET_STD, strict=True)):
        return _scaling([1 / std for std in variance], [-m / std for m, std in zip(mean, variance, strict=True)])
    return _scaling(*_normalised([1.0], [0.0], mean, variance))


def _composed(layers: list[dict[str, Any]], statistics: Mapping[str, tuple[Numbers, Numbers]]) -> Scaling:
    """What layers before the first convolution do together; nothing is said if one is not known."""
    gain, offset, scaled = [255.0], [0.0], False
    for layer in layers:
        kind, own = layer["class_name"], layer["config"]
        if kind == "Rescaling":
            factor, shift = _numbers(own["scale"]), _numbers(own.get("offset", 0))
            gain, offset = _product(gain, factor), _sum(_product(offset, factor), shift)
        elif kind == "Normalization":
            given = own.get("mean"), own.get("variance")
            if given[0] is None:
                found = statistics.get(own.get("name", ""), next(iter(statistics.values()), None))
            else:
                found = _numbers(given[0]), _numbers(given[1])
            if found is None or own.get("invert"):
                return Scaling()
            gain, offset = _normalised(gain, offset, *found)
        elif "Conv" in kind:
            break
        elif not kind.startswith(_NEUTRAL):
            return Scaling()
        scaled = scaled or kind in ("Rescaling", "Normalization")
    return _scaling(gain, offset) if scaled else Scaling()


def _normalised(gain: list[float], offset: list[float], mean: Numbers, variance: Numbers) -> tuple[list[float], ...]:
    inverse = tuple(1 / max(math.sqrt(value), 1e-7) for value in variance)  # keras' epsilon
    return _product(gain, inverse), _product(_sum(offset, tuple(-value for value in mean)), inverse)


def _product(one: list[float], other: Numbers) -> list[float]:
    return [a * b for a, b in _pairs(one, other)]


def _sum(one: list[float], other: Numbers) -> list[float]:
    return [a + b for a, b in _pairs(one, other)]


def _pairs(one: list[float], other: Numbers) -> Iterator[tuple[float, float]]:
    """Numbers a channel; a single one stands for all. Raises ValueError for other lengths."""
    length = max(len(one), len(other))
    return zip(*(tuple(side) * (length if len(side) == 1 else 1) for side in (one, other)), strict=True)


def _scaling(gain: list[float], offset: list[float]) -> Scaling:
    """pixel * gain + offset as a mean and a standard deviation, which nothing says if they are none."""
    length = max(len(gain), len(offset))
    pairs = list(_pairs(gain, tuple(offset) * (length if len(offset) == 1 else 1)))
    if not all(math.isfinite(shift) and factor > 0 and math.isfinite(1 / factor) for factor, shift in pairs):
        return Scaling()
    return Scaling(
        mean=tuple(_short(-shift / factor + 0.0) for factor, shift in pairs),
        std=tuple(_short(1 / factor) for factor, _ in pairs),
    )


def _short(value: float) -> float:
    """The number of six digits that a number in single precision stands for, itself where it is none such."""
    short = float(f"{value:.6g}")
    return short if abs(short - value) <= 2e-7 * abs(value) else value


def _numbers(value: Any) -> Numbers:
    """A tensor, a number, nested lists of them, or an array as Keras describes it, as numbers in a row."""
    if isinstance(value, Tensor):
        return tuple(map(float, value.reshape(-1).tolist()[:4096]))
    if isinstance(value, dict):  # {"class_name": "__numpy__", "config": {"value": ...}}
        return _numbers(value["config"]["value"])
    if isinstance(value, list):
        return tuple(number for part in value for number in _numbers(part))
    return (float(value),)
