"""How an image becomes numbers, as a value: it is saved with a run, so that prediction does what training did."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from trifold.errors import InvalidData

STANDARD: dict[tuple[str, str], tuple[tuple[float, ...], tuple[float, ...]]] = {
    ("imagenet", "RGB"): ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ("imagenet", "L"): ((0.449,), (0.226,)),
    ("half", "RGB"): ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ("half", "L"): ((0.5,), (0.5,)),
}
"""Mean and standard deviation by kind and mode: ImageNet's (tensorflow/tpu efficientnet; for grey their means), 0.5."""

INTERPOLATIONS = ("bilinear", "bicubic", "nearest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """The centre square, resized to `resolution` pixels, scaled to [0, 1], less the mean, over the std.

    mode: "L" (one grey channel) or "RGB"; images of the other mode are converted.
    mean, std: one number a channel, of pixel values in [0, 1].
    """

    resolution: int
    mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if type(self.resolution) is not int or not 4 <= self.resolution <= 8192:
            raise InvalidData(f"preprocessing: resolution must be 4 to 8192 pixels, got {self.resolution!r}")
        if self.mode not in ("L", "RGB"):
            raise InvalidData(f"preprocessing: mode must be L or RGB, got {self.mode!r}")
        if self.interpolation not in INTERPOLATIONS:
            allowed = ", ".join(INTERPOLATIONS)
            raise InvalidData(f"preprocessing: interpolation must be one of {allowed}, got {self.interpolation!r}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise InvalidData(f"preprocessing: {name} must hold {self.channels} numbers, got {values!r}")
            if not all(type(value) in (int, float) and math.isfinite(value) for value in values):
                raise InvalidData(f"preprocessing: {name} must hold finite numbers, got {values!r}")
        if min(self.std) <= 0:
            raise InvalidData(f"preprocessing: std must be above 0, got {self.std!r}")

    @property
    def channels(self) -> int:
        """1 for "L", 3 for "RGB"."""
        return 1 if self.mode == "L" else 3

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def plain(resolution: int, mode: str) -> Preprocessing:
    """Preprocessing that leaves pixel values in [0, 1]."""
    channels = 1 if mode == "L" else 3
    return Preprocessing(resolution=resolution, mode=mode, mean=(0.0,) * channels, std=(1.0,) * channels)


def from_dict(data: dict[str, Any]) -> Preprocessing:
    """The value that to_dict wrote. Raises InvalidData if a field is missing, unknown or out of range."""
    try:
        return Preprocessing(**{**data, "mean": tuple(data["mean"]), "std": tuple(data["std"])})
    except (TypeError, KeyError) as error:
        raise InvalidData(f"preprocessing: fields do not fit: {error}") from None
