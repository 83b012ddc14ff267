"""Images as tensors: decoded and resized once, held in memory as bytes, normalised batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from trifold._torchvision import v2
from trifold.data.dataset import Dataset
from trifold.data.decode import printable
from trifold.data.resize import Box, Levels, resized, to_levels
from trifold.errors import InvalidData
from trifold.preprocessing import Preprocessing

MAX_BYTES = 8 * 2**30
"""The most that one set of images may take in memory."""

LevelsBatch = UInt8[Tensor, "batch channels height width"] | Float[Tensor, "batch channels height width"]
"""As `resize.Levels`: bytes, or float32 from 0 to 255."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Decoded images and their labels, of one size; `images[indices]` takes some of them."""

    pixels: UInt8[Tensor, "images channels height width"]
    labels: Int[Tensor, " images"]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Sequence[int] | Tensor) -> Images:
        chosen = torch.as_tensor(indices, dtype=torch.long)
        return Images(pixels=self.pixels[chosen], labels=self.labels[chosen])


def to_pixels(image: Image.Image, preprocessing: Preprocessing) -> UInt8[Tensor, "channels height width"]:
    """The image as training sees it: in the mode, cropped and resized, not normalised.

    Bytes, to which TensorFlow's resize is rounded and clipped; `to_levels` and `to_input` leave that as it is.
    """
    return _bytes(to_levels(image, preprocessing))


def to_input(image: Image.Image, preprocessing: Preprocessing) -> Float[Tensor, "channels height width"]:
    """What a network takes for the image; float32.

    With the resizer "pillow" bit for bit what timm's and torchvision's transforms for evaluation give; with
    "tensorflow" TensorFlow's levels, bit for bit, of the pixels that Pillow decodes: TensorFlow's own JPEG decoder, as
    it is by default, takes a faster and coarser transform.
    """
    return normalise(to_levels(image, preprocessing)[None], preprocessing)[0]


def cropped(image: Image.Image, box: Box, preprocessing: Preprocessing) -> UInt8[Tensor, "channels height width"]:
    """The box of the image, in place of the preprocessing's crop, resized to the resolution, as bytes."""
    size = (preprocessing.resolution, preprocessing.resolution)
    return _bytes(resized(image, box, size, preprocessing))


def _bytes(levels: Levels) -> UInt8[Tensor, "channels height width"]:
    return levels.round().clamp(0, 255).byte() if levels.is_floating_point() else levels


def check_memory(dataset: Dataset, *preprocessings: Preprocessing) -> None:
    """Raises InvalidData if the images, prepared in each of these ways, would not fit in memory (8 GiB)."""
    total = len(dataset.samples)
    needed = sum(total * p.channels * p.resolution**2 for p in preprocessings)
    if needed > MAX_BYTES:
        size = max(p.resolution for p in preprocessings)
        raise InvalidData(
            f"{printable(dataset.name)}: {total} images at {size} pixels take {needed / 2**30:.1f} GiB in memory; "
            f"at most {MAX_BYTES / 2**30:.0f} are allowed: use a smaller resolution or fewer images"
        )


def load(
    dataset: Dataset, *preprocessings: Preprocessing, progress: Callable[[int, int, str], None] | None = None
) -> tuple[Images, ...]:
    """Every sample of the dataset, in order, decoded once, resized for each preprocessing and not normalised.

    progress: called with (done, total, "decoding") after each image.

    Raises InvalidData if the images would not fit in memory (8 GiB) or one can no longer be read.
    """
    total = len(dataset.samples)
    check_memory(dataset, *preprocessings)
    held = [
        torch.empty(total, p.channels, p.resolution, p.resolution, dtype=torch.uint8).contiguous(
            memory_format=torch.channels_last
        )
        for p in preprocessings
    ]
    for i, sample in enumerate(dataset.samples):
        image = sample.seen()
        for pixels, preprocessing in zip(held, preprocessings, strict=True):
            pixels[i] = to_pixels(image, preprocessing)
        if progress is not None:
            progress(i + 1, total, "decoding")
    labels = torch.tensor(dataset.labels, dtype=torch.long)
    return tuple(Images(pixels=pixels, labels=labels) for pixels in held)


def measured(preprocessing: Preprocessing, images: Images) -> Preprocessing:
    """The preprocessing with mean and standard deviation of these images' channels, to six digits; std at least 1/255.

    Give it the training images only.
    """
    means, stds = [], []
    for channel in range(preprocessing.channels):
        counts = torch.bincount(images.pixels[:, channel].flatten(), minlength=256).double()
        levels, share = torch.arange(256).double() / 255, counts / counts.sum()
        mean = float((levels * share).sum())
        means.append(round(mean, 6))
        stds.append(round(max(float(((levels - mean) ** 2 * share).sum().sqrt()), 1 / 255), 6))
    return replace(preprocessing, mean=tuple(means), std=tuple(stds))


def normalise(levels: LevelsBatch, preprocessing: Preprocessing) -> Float[Tensor, "batch channels height width"]:
    """What a network takes: levels over 255, less the mean, over the standard deviation; float32, channels last."""
    levels = levels.float()
    # torchvision's v2 multiplies by 1 / 255, which may differ in the last bit from the division of all others.
    scaled = levels * (1 / 255) if preprocessing.resizer == "torch" else levels / 255
    batch = v2.functional.normalize(scaled, list(preprocessing.mean), list(preprocessing.std))
    return batch.contiguous(memory_format=torch.channels_last)
