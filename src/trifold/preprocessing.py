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
CROPS = ("square", "resize", "tensorflow", "whole")
RESIZERS = ("torch", "pillow", "tensorflow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """A crop of the image, resized to `resolution` pixels, scaled to [0, 1], less the mean, over the std.

    mode: "L" (one grey channel) or "RGB"; images of the other mode are converted.
    mean, std: one number a channel, of pixel values in [0, 1].
    crop: "square": the centre square; "resize": the shorter side is resized to `resize` pixels, then the centre square
    of `resolution` is cut (timm, torchvision); "tensorflow": the centre square of a side of resolution / (resolution +
    32) of the shorter one (tensorflow/tpu preprocessing.py); "whole": the image squashed to a square.
    resize: for the crop "resize", at least `resolution`; else 0.
    resizer: whose arithmetic: "torch" (torchvision on tensors, bytes), "pillow" (bytes), "tensorflow" (TF1's legacy
    resize: no half-pixel centres, neither antialiased nor rounded nor clipped).
    antialias: for the resizer "torch"; Pillow always does, TensorFlow's legacy never.
    """

    resolution: int
    mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    crop: str = "square"
    resize: int = 0
    resizer: str = "torch"
    antialias: bool = True

    def __post_init__(self) -> None:
        if type(self.resolution) is not int or not 4 <= self.resolution <= 8192:
            raise InvalidData(f"preprocessing: resolution must be 4 to 8192 pixels, got {self.resolution!r}")
        if self.mode not in ("L", "RGB"):
            raise InvalidData(f"preprocessing: mode must be L or RGB, got {self.mode!r}")
        for name, value, known in (
            ("interpolation", self.interpolation, INTERPOLATIONS),
            ("crop", self.crop, CROPS),
            ("resizer", self.resizer, RESIZERS),
        ):
            if value not in known:
                raise InvalidData(f"preprocessing: {name} must be one of {', '.join(known)}, got {value!r}")
        antialias = {"torch": (True, False), "pillow": (True,), "tensorflow": (False,)}[self.resizer]
        if type(self.antialias) is not bool or self.antialias not in antialias:
            allowed = " or ".join(str(value).lower() for value in antialias)
            raise InvalidData(
                f"preprocessing: antialias must be {allowed} for the resizer {self.resizer}, got {self.antialias!r}"
            )
        least = self.resolution if self.crop == "resize" else 0
        if type(self.resize) is not int or not least <= self.resize <= (8192 if least else 0):
            sizes = f"{least} to 8192 pixels" if least else f"0 for the crop {self.crop}"
            raise InvalidData(f"preprocessing: resize must be {sizes}, got {self.resize!r}")
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

    @property
    def range(self) -> tuple[tuple[float, float], ...]:
        """What black and white become, a pair a channel."""
        return tuple((-mean / std, (1 - mean) / std) for mean, std in zip(self.mean, self.std, strict=True))

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
